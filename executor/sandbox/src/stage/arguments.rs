//! The arguments document of a stage, [`FILE`]: what a built-in module gets as its context, as JSON.
//!
//! An on-disk module is given it, and a shell in the place of any stage finds it.

use std::fs;
use std::io;
use std::path::Path;

use osbc_module_api::{Map, Value};
use serde_json::json;

use super::mounts::StageMounts;
use super::root::make_directory;
use super::spec;
use crate::request::StageRequest;

/// Where it lies in the sandbox.
pub(crate) const FILE: &str = "/run/osbuild/api/arguments";

/// Writes the document into the sandbox's root. To be called before the sandbox is entered.
///
/// # Errors
/// There is no room for it.
pub(crate) fn write(request: &StageRequest, around: &StageMounts<'_>) -> io::Result<()> {
    make_directory(&around.inside(spec::API), 0o755).map_err(io::Error::other)?;
    fs::write(around.inside(FILE), format!("{:#}\n", document(request, around)))
}

fn document(request: &StageRequest, around: &StageMounts<'_>) -> Value {
    let inputs: Map<String, Value> = around
        .inputs
        .iter()
        .map(|(name, input)| {
            let mut entry = json!({"path": input.path});
            if !input.data.is_null() {
                entry["data"] = input.data.clone();
            }
            (name.clone(), entry)
        })
        .collect();
    let devices: Map<String, Value> = request
        .devices
        .iter()
        .zip(&around.devices)
        .map(|(device, opened)| {
            let mut entry = if opened.data.is_object() { opened.data.clone() } else { json!({}) };
            entry["path"] = json!(Path::new(spec::DEVICES).join(&opened.path));
            (device.name.clone(), entry)
        })
        .collect();
    let mounts: Map<String, Value> =
        around.mounts.iter().map(|(name, mount)| (name.clone(), json!({"path": mount.path}))).collect();
    let mut meta = json!({"id": request.id});
    if let Some(epoch) = request.source_epoch {
        meta["source-epoch"] = json!(epoch);
    }
    json!({
        "tree": spec::TREE,
        "paths": {"devices": spec::DEVICES, "inputs": spec::INPUTS, "mounts": spec::MOUNTS},
        "devices": devices,
        "inputs": inputs,
        "mounts": mounts,
        "options": request.options,
        "meta": meta,
    })
}
