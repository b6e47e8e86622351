//! What the agent gives up, so that whoever gets hold of it by what it reads gets little: rights before anything is opened, the
//! means to get others, and, once everything is open, all system calls but those that it needs.
//!
//! - [`drop_rights`]: capabilities. They belong to threads, and later threads have those of the one that makes them: so this comes
//!   before the first thread, and only keeps what is needed later.
//! - [`confine`]: no new privileges, and the filter over system calls ([`calls`]), for all threads there are and will be.
//!
//! A forbidden call fails with EPERM and the agent goes on: an attacker is refused either way, and a fabric's library that tries
//! what it can do without must not end everybody's streams.

mod calls;
#[cfg(test)]
mod tests;

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};
use std::fmt;

/// Ports below this one are root's.
const FIRST_FREE_PORT: u16 = 1024;

/// What the agent keeps of the rights it was started with.
pub(super) struct Rights(CapabilitySet);

impl Rights {
    /// Reading the names of other users' programs for the policy (SYS_PTRACE), locking memory (IPC_LOCK), and a port of root's if
    /// it is to listen there.
    pub(super) fn needed(port: u16) -> Self {
        let mut needed = CapabilitySet::SYS_PTRACE | CapabilitySet::IPC_LOCK;
        needed.set(CapabilitySet::NET_BIND_SERVICE, port < FIRST_FREE_PORT);
        Self(needed)
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter_names().map(|(name, _)| name).collect();
        f.write_str(if names.is_empty() { "none" } else { "" })?;
        f.write_str(&names.join(" "))
    }
}

/// Gives up all capabilities but those that are needed and there, in every set. To be called while there is one thread.
///
/// # Errors
/// The kernel refuses.
pub(super) fn drop_rights(needed: Rights) -> Result<Rights, Errno> {
    let present = rustix::thread::capabilities(None)?.permitted;
    let kept = needed.0 & present;
    clear_ambient_capability_set()?;
    // Without SETPCAP, as for any ordinary user, that set cannot be made smaller; no new privileges makes it useless.
    if present.contains(CapabilitySet::SETPCAP) {
        bound(kept)?;
    }
    set_capabilities(
        None,
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
    )?;
    Ok(Rights(kept))
}

/// What an image that this process executes could still get: nothing but `kept`.
fn bound(kept: CapabilitySet) -> Result<(), Errno> {
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(one) {
            Ok(true) if !kept.contains(one) => remove_capability_from_bounding_set(one)?,
            Ok(_) => {}
            // The kernel knows no more.
            Err(_) => break,
        }
    }
    Ok(())
}

/// Allows this process only the calls that it needs from now on, in all its threads, and no new privileges. How many calls those are.
///
/// # Errors
/// A line: this kernel has no filters, or refuses this one.
pub(super) fn confine() -> Result<usize, String> {
    let [without_clone3, allowed] = calls::filters().map_err(|error| error.to_string())?;
    for filter in [without_clone3, allowed] {
        seccompiler::apply_filter_all_threads(&filter).map_err(|error| error.to_string())?;
    }
    Ok(calls::count())
}
