//! Sources of on-disk modules: whatever a file holds, it is described or refused.

#![no_main]

use std::fs;

use osbc_module_api::{Kind, Library};
use osbc_modules::foreign::Foreign;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let root = std::env::temp_dir().join(format!("osbc-fuzz-{}", std::process::id()));
    let stages = root.join("stages");
    if fs::create_dir_all(&stages).and_then(|()| fs::write(stages.join("module"), data)).is_ok() {
        let _ = Foreign::new(&root).module(Kind::Stage, "module");
    }
});
