//! `osbc store`: lists, verifies, exports and removes results.

use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use osbc_store::export::export;
use osbc_store::fs::copy::Ownership;
use osbc_store::{DamageAction, Evicted, Kept, Limit, Store, Verified, Way};
use serde_json::{Value, json};

use crate::args::{StoreArgs, StoreCommand};
use crate::exit::{self, Failure};
use crate::output::print;
use crate::{render, warnings, wiring};

/// Does one of the store's commands.
pub(crate) fn run(command: StoreCommand) -> Result<ExitCode, Failure> {
    match command {
        StoreCommand::Ls { store, json } => ls(&open(&store)?, json),
        StoreCommand::Info { store: args, json } => info(&open(&args)?, args.keep.settings().limit, json),
        StoreCommand::Verify { store, repair, json } => verify(&open(&store)?, repair, json),
        StoreCommand::Gc { store, json } => gc(&open(&store)?, json),
        StoreCommand::Rm { ids, store } => rm(&open(&store)?, &ids),
        StoreCommand::Export { id, to, store } => write_tree(&open(&store)?, &id, &to),
    }
}

/// Opens the store, which must exist: to inspect a missing store means that the wrong one was named.
fn open(args: &StoreArgs) -> Result<Store, Failure> {
    let path = wiring::store_path(args.store.as_deref())?;
    if Store::open_existing(&path)?.is_none() {
        return Err(Failure::arguments(format!("there is no store at {}", path.display())));
    }
    Ok(Store::open(&path, args.keep.settings())?)
}

fn ls(store: &Store, json: bool) -> Result<ExitCode, Failure> {
    let inventory = store.inventory()?;
    let mut kept: Vec<&Kept> = inventory.objects.values().collect();
    kept.sort_by_key(|kept| (std::cmp::Reverse(kept.used), kept.meta.id));
    if json {
        let rows: Vec<Value> = kept.iter().map(|kept| row_as_json(kept)).collect();
        return Ok(print(format!("{:#}\n", Value::Array(rows)).as_bytes())?);
    }
    let header = ["ID", "USED", "SIZE", "TIME", "LAYERS", "STAGE"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(kept.iter().map(|kept| {
        let meta = &kept.meta;
        vec![
            meta.id.short(),
            age(kept.used),
            render::bytes(kept.bytes),
            render::duration(meta.duration()),
            (meta.lowers.len() + 1).to_string(),
            module(kept).to_owned(),
        ]
    }));
    Ok(print(render::table(&rows).as_bytes())?)
}

fn row_as_json(kept: &Kept) -> Value {
    let meta = &kept.meta;
    json!({
        "id": meta.id.to_string(),
        "stage": module(kept),
        "base": meta.base.map(|id| id.to_string()),
        "lowers": meta.lowers.iter().map(|lower| lower.id.to_string()).collect::<Vec<_>>(),
        "digest": meta.digest.map(|digest| digest.to_string()),
        "bytes": kept.bytes,
        "duration": meta.duration().as_secs_f64(),
        "used": seconds(kept.used),
        "metadata": meta.metadata(),
    })
}

fn module(kept: &Kept) -> &str {
    kept.meta.steps.last().map_or("", |step| &step.module)
}

fn info(store: &Store, limit: Limit, json: bool) -> Result<ExitCode, Failure> {
    let (way, why) = store.keeping()?;
    let inventory = store.inventory()?;
    let results: u64 = inventory.objects.values().map(|kept| kept.bytes).sum();
    let whole = || inventory.objects.values().filter(|kept| way == Way::Overlay && kept.is_whole_copy());
    let whole_bytes: u64 = whole().map(|kept| kept.bytes).sum();
    let items: u64 = inventory.items.iter().map(|item| item.bytes).sum();
    let parts: u64 = inventory.parts.iter().map(|part| part.bytes).sum();
    let (size, free) = store.file_system();
    let (damaged, damaged_bytes) = store.damaged();
    let leases = store.leases()?;
    if json {
        let document = json!({
            "path": store.path().to_string_lossy(),
            "way": name(way),
            "why": why,
            "limit": store.limit(),
            "results": {"count": inventory.objects.len(), "bytes": results},
            "whole": {"count": whole().count(), "bytes": whole_bytes},
            "items": {"count": inventory.items.len(), "bytes": items},
            "parts": {"count": inventory.parts.len(), "bytes": parts},
            "useless": inventory.useless.len(),
            "damaged": {"count": damaged, "bytes": damaged_bytes},
            "file_system": {"bytes": size, "free": free},
            "builds": leases,
        });
        return Ok(print(format!("{document:#}\n").as_bytes())?);
    }
    let limit = match (limit, store.limit()) {
        (Limit::Share, Some(bytes)) => format!("{}, a tenth of the file system", render::bytes(bytes)),
        (_, Some(bytes)) => render::bytes(bytes),
        (_, None) => "none".to_owned(),
    };
    let mut rows = vec![
        ["store", &store.path().display().to_string()].map(str::to_owned).to_vec(),
        vec!["kept as".to_owned(), format!("{}: {why}", described(way))],
        vec![
            "takes".to_owned(),
            format!(
                "{}: {} ({}), {} ({})",
                render::bytes(inventory.bytes()),
                render::count(inventory.objects.len(), "result"),
                render::bytes(results),
                render::count(inventory.items.len(), "item"),
                render::bytes(items)
            ),
        ],
        vec!["limit".to_owned(), limit],
        vec!["free".to_owned(), format!("{} of {}", render::bytes(free), render::bytes(size))],
    ];
    if whole_bytes > 0 {
        let count = render::count(whole().count(), "result");
        let size = render::bytes(whole_bytes);
        rows.push(vec![
            "whole".to_owned(),
            format!("{count} ({size}): plain directories, since no layer can hold them"),
        ]);
    }
    if !inventory.useless.is_empty() {
        let count = render::count(inventory.useless.len(), "left-over");
        rows.push(vec!["unusable".to_owned(), format!("{count}: `osbc store gc` removes them")]);
    }
    if !inventory.parts.is_empty() {
        let count = render::count(inventory.parts.len(), "part");
        let size = render::bytes(parts);
        rows.push(vec![
            "begun".to_owned(),
            format!("{count} of items ({size}): the next fetch goes on, `osbc store gc` removes them"),
        ]);
    }
    if damaged > 0 {
        let count = render::count(damaged, "thing");
        let size = render::bytes(damaged_bytes);
        rows.push(vec!["set aside".to_owned(), format!("{count} ({size}): `osbc store gc` removes them")]);
    }
    rows.push(vec!["used by".to_owned(), render::count(leases, "build")]);
    Ok(print(render::table(&rows).as_bytes())?)
}

fn name(way: Way) -> &'static str {
    match way {
        Way::Overlay => "overlay",
        Way::Reflink => "reflink",
        Way::Copy => "copy",
    }
}

fn described(way: Way) -> &'static str {
    match way {
        Way::Overlay => "overlayfs layers",
        Way::Reflink => "whole trees that share data by reflinks",
        Way::Copy => "whole trees",
    }
}

fn verify(store: &Store, repair: bool, json: bool) -> Result<ExitCode, Failure> {
    let verified = store.verify(repair, &osbc_engine::check_item)?;
    let text = if json { format!("{:#}\n", verified_as_json(&verified)) } else { verified_as_text(&verified, repair) };
    print(text.as_bytes())?;
    let left = verified.damages.iter().any(|damage| damage.fate != DamageAction::SetAside);
    Ok(if left { ExitCode::from(exit::BUILD_FAILED) } else { ExitCode::SUCCESS })
}

/// Files are named after what is in them; other kinds of items check themselves when they are used.
fn verified_as_json(verified: &Verified) -> Value {
    let damages: Vec<Value> = verified
        .damages
        .iter()
        .map(
            |damage| json!({"path": damage.path.to_string_lossy(), "reason": damage.reason, "fate": fate(damage.fate)}),
        )
        .collect();
    json!({"results": verified.objects, "items": verified.items, "bytes": verified.bytes, "damages": damages})
}

fn verified_as_text(verified: &Verified, repair: bool) -> String {
    let mut text = String::new();
    for damage in &verified.damages {
        text.push_str(&format!("{}: {} ({})\n", damage.path.display(), damage.reason, fate(damage.fate)));
    }
    let (results, items) = (render::count(verified.objects, "result"), render::count(verified.items, "item"));
    let read = format!("{results} and {items}, {}", render::bytes(verified.bytes));
    let end = match (verified.damages.len(), repair) {
        (0, _) => format!("{read}: sound\n"),
        (count, true) => format!("{read}: {count} damaged; the next build makes again what was set aside\n"),
        (count, false) => format!("{read}: {count} damaged; `osbc store verify --repair` sets them aside\n"),
    };
    text + &end
}

fn fate(fate: DamageAction) -> &'static str {
    match fate {
        DamageAction::Left => "left",
        DamageAction::SetAside => "set aside",
        DamageAction::InUse => "in use",
    }
}

fn gc(store: &Store, json: bool) -> Result<ExitCode, Failure> {
    let Evicted { objects, items, parts, useless, bytes, left } = store.gc()?;
    if json {
        let document = json!({
            "results": objects, "items": items, "parts": parts, "useless": useless, "bytes": bytes, "left": left,
        });
        return Ok(print(format!("{document:#}\n").as_bytes())?);
    }
    let (objects, items) = (render::count(objects, "result"), render::count(items, "item"));
    let parts = match parts {
        0 => String::new(),
        parts => format!(" and {} of items", render::count(parts, "part")),
    };
    let text = format!(
        "evicted {objects} and {items}{parts}, {}; the store takes {} now\n",
        render::bytes(bytes),
        render::bytes(left)
    );
    Ok(print(text.as_bytes())?)
}

fn rm(store: &Store, ids: &[String]) -> Result<ExitCode, Failure> {
    let ids = ids.iter().map(|id| store.find(id)).collect::<Result<Vec<_>, _>>()?;
    let (count, bytes) = store.remove(&ids)?;
    Ok(print(format!("removed {}, {}\n", render::count(count, "result"), render::bytes(bytes)).as_bytes())?)
}

fn write_tree(store: &Store, id: &str, to: &Path) -> Result<ExitCode, Failure> {
    let lease = store.lease_nothing()?;
    let id = store.find(id)?;
    lease.add(id)?;
    let copied = export(&lease, Some(id), to, Ownership::Keep)?;
    warnings::of_export("osbc", to, &copied.lost);
    Ok(print(format!("{}: {}\n", to.display(), render::bytes(copied.bytes)).as_bytes())?)
}

/// How long ago something was: `5 min`, `3 days`.
fn age(moment: SystemTime) -> String {
    let seconds = moment.elapsed().unwrap_or_default().as_secs();
    match seconds {
        0..60 => "now".to_owned(),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => render::count(usize::try_from(seconds / 86_400).unwrap_or(usize::MAX), "day"),
    }
}

fn seconds(moment: SystemTime) -> u64 {
    moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
