//! What a stage takes for "now" in what it writes.

use std::time::{SystemTime, UNIX_EPOCH};

use osbc_module_api::StageMeta;

/// Seconds since 1970: the source epoch where there is one, else the machine's clock.
pub(crate) fn seconds(meta: &StageMeta) -> i64 {
    meta.source_epoch.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}
