//! Warnings of a build, for people.

use std::path::Path;

use osbc_engine::Warning;
use osbc_store::fs::copy::Lost;

use crate::output::say;
use crate::render;

/// Shows the warnings of a plan.
pub(crate) fn of_plan(warnings: &[Warning]) {
    for warning in warnings {
        say(&match warning {
            Warning::Damaged(damage) => format!(
                "osbc: warning: {} was damaged: {}; it is set aside and made again",
                damage.path.display(),
                damage.reason
            ),
            Warning::LittleRoom { store, need, have } => format!(
                "osbc: warning: this build is expected to need {}, and the store {} has {}; `--store` names another",
                render::bytes(*need),
                store.display(),
                render::bytes(*have)
            ),
        });
    }
}

/// Shows, as the program `name`, what the export to `directory` could not keep.
pub(crate) fn of_export(name: &str, directory: &Path, lost: &[Lost]) {
    for lost in lost {
        say(&format!(
            "{name}: warning: the file system of {} does not take the attribute {} of {}",
            directory.display(),
            lost.attribute,
            lost.path.display()
        ));
    }
}
