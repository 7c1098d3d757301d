//! Our own ids, pinned: if one of these changes, every cache of every user is lost.
//!
//! Change them on purpose only, together with the number in the context strings of `identity.rs`.

use osbc_ir::{ItemKey, NodeId, identity};

use crate::sample::*;

#[test]
fn ids_never_change_by_accident() {
    let graph = everything().finalize();
    let id = |pipeline: usize, position: usize| {
        let node = graph.pipelines[pipeline].stages[position];
        graph.stage_node(node).expect("a stage").id.to_string()
    };
    let ids = [id(BUILD, 0), id(OS, 0), id(OS, 1), id(IMAGE, 0), id(IMAGE, 1), id(IMAGE, 2), id(ON_EMPTY, 0)];
    assert_eq!(
        ids,
        [
            "04b573da0869d212531f1658004f95f0165b33166c4b2a3fd74036b735acc8b6",
            "7009e42fbbdf0b9b449c1fbce557b37df99a540ac3a2fb3b7f2c12bc90d95cd3",
            "128ad35f65b0f2fbdc324991f9a12700f764d64808c9b7cf91cfe98a84e808a3",
            "f21d82f8cfa78cb453d07846003959dc1b7c22c773888e822ae3b6d456aa2245",
            "35e63c238fab55a9335689b6305e06f9cdd8f27ac6e3e131d9763a883fcd0621",
            "e382e451fa3a9cd45e5e29b0cf83a7c1826544edd2352b07a0bf13d112477a97",
            "235730c903813aab4cef1a5f17608d1a2e0440a01eb21c59e7a00ad27000cc19",
        ]
    );
    assert_eq!(
        identity::item_id(&ItemKey::new("org.osbuild.files", A)).to_string(),
        "4b942b1b969df43d78e3b9a37c8fb8ae1e49ccf4e6900db04b3ef47887386460"
    );
}

#[test]
fn an_item_is_its_content_type_and_checksum() {
    let id = identity::item_id(&ItemKey::new("org.osbuild.files", A));
    assert_ne!(id, identity::item_id(&ItemKey::new("org.osbuild.files", B)));
    assert_ne!(id, identity::item_id(&ItemKey::new("org.osbuild.ostree", A)));
    let graph = everything().finalize();
    let node = graph.by_id[&NodeId::Item(id)];
    let (source, item) = graph.item(graph.item_node(node).expect("an item"));
    assert_eq!((source.module.name.as_str(), item.key.checksum.as_str()), ("org.osbuild.curl", A));
}
