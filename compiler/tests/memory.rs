//! What large manifests take: memory in proportion to their text. A process of its own, so that nothing else counts.

use std::fmt::Write as _;
use std::sync::Arc;

use osbc_compiler::passes::{self, Request, Retention};
use osbc_compiler::{Host, SourceText, compile};
use osbc_ir::CachedSet;
use osbc_module_api::{Catalog, Library};
use osbc_modules::builtin::BuiltIn;
use osbc_modules::trees::runners::{BUILT_IN, for_host};

/// How many times the memory of its text a manifest may take until its plan is there.
const MOST: u64 = 20;

/// The most memory that this process ever had, in bytes.
fn peak() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("the kernel reports it");
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it has the peak");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

#[test]
fn a_plan_of_many_small_stages_takes_twenty_times_their_text_at_most() {
    let mut text = String::from(r#"{"version":"2","pipelines":[{"name":"t","stages":["#);
    for index in 0..100_000 {
        let comma = if index == 0 { "" } else { "," };
        let name = format!("h{index}-and-some-more-to-fill-a-line");
        write!(text, r#"{comma}{{"type":"org.osbuild.hostname","options":{{"hostname":"{name}"}}}}"#).expect("grows");
    }
    text.push_str("]}]}");
    let length = text.len() as u64;
    let libraries: Vec<Box<dyn Library>> = vec![Box::new(BuiltIn)];
    let (catalog, host) = (Catalog::new(libraries), for_host("", BUILT_IN));
    let before = peak() - length;
    let text = SourceText::from_bytes("m.json", text.into_bytes()).expect("text");
    let graph = Arc::new(passes::share(compile(&text, &catalog, Host::bare(&host)).expect("it is valid").finalize()));
    let exports = passes::default_exports(&graph).expect("one pipeline");
    let plan = passes::plan(graph, Request::Exports(exports), &CachedSet::default(), Retention::Every, &|_, _| None);
    let took = peak() - before;
    assert_eq!(plan.segments.len(), 100_000);
    assert!(took <= MOST * length, "{took} bytes for a text of {length}");
}
