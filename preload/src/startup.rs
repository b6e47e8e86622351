//! The moments of loading and of leaving: find the real functions, start the runtime, and at exit hand over
//! what is still on its way. `_exit` and `quick_exit`, which run no destructors, are hooks
//! (`hooks::process`).

use convoy_runtime::anchor::{ANCHOR, Anchor};
use convoy_runtime::api;

use crate::calls;

/// For debuggers: `convoy dump` finds it by its first words, gdb by its name.
#[used]
#[unsafe(export_name = "convoy_anchor")]
pub static PUBLISHED: &Anchor = &ANCHOR;

#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = at_load;

#[used]
#[unsafe(link_section = ".fini_array")]
static AT_EXIT: extern "C" fn() = at_exit;

extern "C" fn at_load() {
    calls::resolve_all();
    api::start();
}

extern "C" fn at_exit() {
    api::before_exit();
}
