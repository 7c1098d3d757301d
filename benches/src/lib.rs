//! What the benchmarks share: compiling a text with the built-in modules.

use std::sync::Arc;

use osbc_compiler::passes;
use osbc_compiler::{Host, SourceText, compile};
use osbc_ir::{Graph, Manifest, Runner};
use osbc_module_api::Catalog;
use osbc_modules::builtin::BuiltIn;

/// The command's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A catalog of the built-in modules.
pub fn catalog() -> Catalog {
    Catalog::new(vec![Box::new(BuiltIn)])
}

/// The host's runner, the same on every machine.
pub fn host() -> Runner {
    Runner { name: "org.osbuild.linux".into(), exec: "org.osbuild.linux".into() }
}

/// A manifest as the compiler reads it.
///
/// # Panics
/// It is no text.
pub fn text(manifest: &str) -> SourceText {
    SourceText::from_bytes("benchmark.json", manifest.as_bytes().to_vec()).expect("benchmarks are UTF-8")
}

/// Parses, validates and lowers.
///
/// # Panics
/// The manifest has problems.
pub fn lowered(text: &SourceText, catalog: &Catalog) -> Manifest {
    compile(text, catalog, Host::bare(&host())).unwrap_or_else(|report| panic!("{report}"))
}

/// All the way to the shared graph.
pub fn graph(manifest: Manifest) -> Arc<Graph> {
    Arc::new(passes::share(manifest.finalize()))
}
