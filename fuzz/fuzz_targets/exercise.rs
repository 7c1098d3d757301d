//! What both formats' targets do with their input: compile it as far as it goes, then seal and describe it, or render
//! what is wrong with it.

use std::sync::LazyLock;

use miette::{GraphicalReportHandler, GraphicalTheme};
use osbc_pytext::json;
use osbc_compiler::{IdScheme, SourceText, compile, describe};
use osbc_module_api::{Catalog, Library};
use osbc_modules::builtin::BuiltIn;
use osbc_modules::runners::{BUILT_IN, for_host};

static CATALOG: LazyLock<Catalog> = LazyLock::new(|| {
    let libraries: Vec<Box<dyn Library>> = vec![Box::new(BuiltIn)];
    Catalog::new(libraries)
});

/// Takes the bytes of a manifest through the front of the compiler.
pub fn exercise(bytes: Vec<u8>) {
    let Ok(text) = SourceText::from_bytes("fuzz.json", bytes) else { return };
    match compile(&text, &CATALOG, &for_host("", BUILT_IN)) {
        Ok(manifest) => {
            let graph = manifest.seal();
            json::to_string(&describe(&graph, IdScheme::Osbuild));
            json::to_string(&describe(&graph, IdScheme::Blake3));
        }
        Err(report) => {
            let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor());
            report.render(&handler, 20);
            report.to_json();
        }
    }
}
