//! Advice on failures, in terms of the flags of this program and the commands of the system, which the crates below do
//! not know.

use std::borrow::Cow;

use osbc_ir::{Cause, Resource, StageResult};

/// What to do if the OS refuses a process or a thread.
pub(crate) const TASKS: &str = "raise the limit of tasks (`ulimit -u`, systemd's TasksMax, a container's --pids-limit) or of \
                                memory (`ulimit -v`), or run fewer stages at a time (--jobs)";

/// Returns why a stage failed and what to do about it; `None` if it did not fail or gives no reason.
pub(crate) fn reason(result: &StageResult) -> Option<Cow<'_, str>> {
    let reason = result.error.as_deref()?;
    Some(with_advice(reason, result.cause))
}

/// Returns a reason with what to do about its cause, if there is something.
pub(crate) fn with_advice(reason: &str, cause: Option<Cause>) -> Cow<'_, str> {
    match cause.and_then(of_cause) {
        Some(advice) => format!("{reason}; {advice}").into(),
        None => reason.into(),
    }
}

fn of_cause(cause: Cause) -> Option<&'static str> {
    match cause {
        Cause::Exhausted(Resource::Tasks) => Some(TASKS),
        Cause::Exhausted(Resource::Memory) => Some("run fewer stages at a time (--jobs)"),
        Cause::Exhausted(Resource::LoopDevices) => Some("release some (`losetup --all`), or raise loop.max_loop"),
        // These say it themselves.
        Cause::Exhausted(Resource::Disk | Resource::Emulator) => None,
        Cause::Module | Cause::Environment | Cause::TimedOut | Cause::Interrupted => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_had_no_more_of_has_a_way_out() {
        let words = |cause| with_advice("it broke", cause).into_owned();
        assert_eq!(words(Some(Cause::Exhausted(Resource::Memory))), "it broke; run fewer stages at a time (--jobs)");
        assert!(words(Some(Cause::Exhausted(Resource::Tasks))).contains("ulimit -u"));
        assert!(words(Some(Cause::Exhausted(Resource::LoopDevices))).contains("losetup"));
        for cause in [None, Some(Cause::Module), Some(Cause::TimedOut), Some(Cause::Exhausted(Resource::Disk))] {
            assert_eq!(words(cause), "it broke");
        }
    }
}
