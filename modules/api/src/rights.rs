//! What a program that a stage starts may do: capabilities and system calls. Knows neither which program it is nor where it
//! runs.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use crate::container::{CAPABILITIES, LAST_CALL, REFUSED};
use crate::system_calls::Filter;

/// The rights of a program.
#[derive(Debug)]
pub struct Rights {
    /// The capabilities that it keeps, and its filter; `None` if it may do what the stage may.
    contained: Option<(CapabilitySet, Filter)>,
}

impl Rights {
    /// Returns those that a container has, and these capabilities besides, as far as the stage has them.
    pub fn container(more: CapabilitySet) -> Self {
        let named = |name: &str| name.strip_prefix("CAP_").and_then(CapabilitySet::from_name);
        let usual: CapabilitySet = CAPABILITIES.into_iter().filter_map(named).collect();
        Self { contained: Some((usual | more, Filter::new(REFUSED, Some(LAST_CALL)))) }
    }

    /// Returns all those of the stage.
    pub fn of_stage() -> Self {
        Self { contained: None }
    }

    /// Whether they are less than the stage's.
    pub fn are_a_containers(&self) -> bool {
        self.contained.is_some()
    }

    /// Leaves the calling process these rights alone, for good. Allocates nothing, so that it may be called between fork
    /// and exec.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn take(&self) -> io::Result<()> {
        let Some((kept, filter)) = &self.contained else { return Ok(()) };
        set_no_new_privs(true)?;
        filter.apply()?;
        keep(*kept)
    }
}

/// Keeps these capabilities of the process and of all that it starts.
fn keep(kept: CapabilitySet) -> io::Result<()> {
    clear_ambient_capability_set()?;
    let own = capabilities(None)?;
    // Who may not, mostly a user who runs tests, has nothing that could be given on.
    let may_drop = own.effective.contains(CapabilitySet::SETPCAP);
    for capability in (0..64).filter(|_| may_drop).map(|bit| CapabilitySet::from_bits_retain(1 << bit)) {
        // The kernel knows no further one behind the first that it does not know.
        match capability_is_in_bounding_set(capability) {
            Ok(there) if there && !kept.contains(capability) => remove_capability_from_bounding_set(capability)?,
            Ok(_) => {}
            Err(_) => break,
        }
    }
    let permitted = own.permitted & kept;
    Ok(set_capabilities(None, CapabilitySets { effective: permitted, permitted, inheritable: permitted })?)
}
