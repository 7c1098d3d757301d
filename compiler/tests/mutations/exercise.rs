//! What tests and fuzz targets of both formats do with their input: compile it as far as it goes, then finalize and describe
//! it, or render what is wrong with it.

use std::sync::LazyLock;

use miette::{GraphicalReportHandler, GraphicalTheme};
use osbc_compiler::{Host, IdScheme, SourceText, compile, describe};
use osbc_module_api::{Catalog, Library};
use osbc_modules::builtin::BuiltIn;
use osbc_modules::trees::runners::{BUILT_IN, for_host};
use osbc_pytext::json;

static CATALOG: LazyLock<Catalog> = LazyLock::new(|| {
    let libraries: Vec<Box<dyn Library>> = vec![Box::new(BuiltIn)];
    Catalog::new(libraries)
});

/// Compiles a manifest as it is: without a `version`, one of format 1.
pub(crate) fn v1(data: &[u8]) {
    let Ok(text) = SourceText::from_bytes("m.json", data.to_vec()) else { return };
    match compile(&text, &CATALOG, Host::bare(&for_host("", BUILT_IN))) {
        Ok(manifest) => {
            let graph = manifest.finalize();
            for ids in [IdScheme::Osbuild, IdScheme::Blake3] {
                assert!(json::to_string(&describe(&graph, ids)).starts_with("{\""));
            }
        }
        Err(report) => {
            assert!(!report.problems().is_empty());
            for located in report.problems() {
                assert!(located.line > 0 && located.column > 0 && located.span.end <= text.as_str().len());
            }
            let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor());
            assert!(report.render(&handler, 3).contains("osbc::"));
            assert!(report.to_json()["errors"][0]["path"].is_array());
        }
    }
}

/// Compiles a manifest of format 2, behind whose `version` the data stand.
pub(crate) fn v2(data: &[u8]) {
    let inside = data.strip_prefix(b"{").unwrap_or(data);
    v1(&[b"{\"version\": \"2\", ", inside].concat());
}
