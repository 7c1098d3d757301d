//! `osbc modules`: the list of modules, and the options of one.

use std::fmt::Write as _;
use std::process::ExitCode;

use osbc_module_api::{Catalog, Kind, Module, Provider};
use serde_json::{Value, json};

use crate::args::ModulesArgs;
use crate::exit::Failure;
use crate::output::print;
use crate::{render, wiring};

/// Lists the modules, or explains one.
pub(crate) fn run(args: &ModulesArgs) -> Result<ExitCode, Failure> {
    let session = wiring::session(args.libdir.as_deref(), &wiring::BUILT_IN_FIRST)?;
    let catalog = session.catalog();
    let modules = match &args.name {
        Some(name) => named(catalog, name)?,
        None => all(catalog)?,
    };
    let text = match (&args.name, args.json) {
        (_, true) => {
            let documents: Vec<Value> = modules.iter().map(|module| document(module)).collect();
            format!("{:#}\n", Value::Array(documents))
        }
        (Some(_), false) => modules.iter().map(|module| explanation(module)).collect::<Vec<_>>().join("\n"),
        (None, false) => list(&modules),
    };
    Ok(print(text.as_bytes())?)
}

fn all(catalog: &Catalog) -> Result<Vec<std::sync::Arc<Module>>, Failure> {
    let mut modules = Vec::new();
    for kind in Kind::ALL {
        for name in catalog.names(kind)? {
            modules.extend(catalog.module(kind, &name)?);
        }
    }
    Ok(modules)
}

/// The modules of every kind that a name means: in full, or without its `org.osbuild.`.
fn named(catalog: &Catalog, name: &str) -> Result<Vec<std::sync::Arc<Module>>, Failure> {
    let mut found = Vec::new();
    for kind in Kind::ALL {
        for full in [name.to_owned(), format!("org.osbuild.{name}"), format!("org.osbc.{name}")] {
            found.extend(catalog.module(kind, &full)?);
        }
    }
    if found.is_empty() {
        return Err(Failure::arguments(format!("there is no module `{name}`; `osbc modules` lists all")));
    }
    Ok(found)
}

fn list(modules: &[std::sync::Arc<Module>]) -> String {
    let row = |module: &std::sync::Arc<Module>| {
        vec![module.kind.to_string(), module.name.clone(), provider(module), module.summary.clone()]
    };
    let header = ["KIND", "NAME", "PROVIDER", "SUMMARY"].map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(header).chain(modules.iter().map(row)).collect();
    render::table(&rows)
}

fn provider(module: &Module) -> String {
    match &module.provider {
        Provider::BuiltIn(_) => "built-in".to_owned(),
        Provider::OnDisk(module) => module.file.display().to_string(),
    }
}

fn explanation(module: &Module) -> String {
    let mut text = String::new();
    let write = |text: &mut String, line: &str| writeln!(text, "{line}").expect("a string grows");
    write(&mut text, &format!("{} ({}, {})", module.name, module.kind, provider(module)));
    write(&mut text, &format!("\n{}", module.summary));
    if !module.description.is_empty() {
        write(&mut text, &format!("\n{}", module.description));
    }
    if !module.capabilities.is_empty() {
        write(&mut text, &format!("\nCapabilities: {}", module.capabilities.join(", ")));
    }
    for (title, schema) in [("Schema", &module.schema_2), ("Schema of version 1", &module.schema)] {
        if let Some(schema) = schema {
            write(&mut text, &format!("\n{title}:\n{schema:#}"));
        }
    }
    text
}

fn document(module: &Module) -> Value {
    json!({
        "kind": module.kind,
        "name": module.name,
        "provider": provider(module),
        "revision": module.revision,
        "summary": module.summary,
        "description": module.description,
        "capabilities": module.capabilities,
        "schema": module.schema,
        "schema_2": module.schema_2,
    })
}
