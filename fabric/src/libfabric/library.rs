//! The library itself, opened while the program runs: the few functions it exports, and the environment it reads.
//!
//! Loading at run time, by hand instead of with generated bindings, lets the program start on hosts that have no
//! libfabric, and be built without it or libclang.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::OnceLock;

use super::bindings::{fi_fabric_attr, fi_info, fi_version, fid_fabric};
use crate::Error;

type GetInfo =
    unsafe extern "C" fn(u32, *const c_char, *const c_char, u64, *const fi_info, *mut *mut fi_info) -> c_int;

/// The exported functions.
pub struct Library {
    /// The version of the interface to ask for: that of the bindings, or of the library if that is older.
    pub version: u32,
    /// What the library itself is.
    pub found: u32,
    pub getinfo: GetInfo,
    pub freeinfo: unsafe extern "C" fn(*mut fi_info),
    pub dupinfo: unsafe extern "C" fn(*const fi_info) -> *mut fi_info,
    pub fabric: unsafe extern "C" fn(*mut fi_fabric_attr, *mut *mut fid_fabric, *mut c_void) -> c_int,
    strerror: unsafe extern "C" fn(c_int) -> *const c_char,
}

/// The oldest version whose structures begin as the bindings say.
const OLDEST: u32 = fi_version(1, 9);

/// The library, loaded at the first call.
///
/// # Errors
/// It is not installed, or too old.
pub fn library() -> Result<&'static Library, Error> {
    static LIBRARY: OnceLock<Result<Library, Error>> = OnceLock::new();
    LIBRARY.get_or_init(load).as_ref().map_err(Clone::clone)
}

impl Library {
    /// What an error number of the library means.
    pub fn describe(&self, errno: i32) -> String {
        // SAFETY: fi_strerror returns a string that lives as long as the library, which is never closed, for any
        // number.
        let text = unsafe { (self.strerror)(errno) };
        if text.is_null() {
            return format!("error {errno}");
        }
        // SAFETY: it ends with a zero byte.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }

    /// An [`Error`] for a failed call.
    pub fn error(&self, what: &str, errno: i32) -> Error {
        Error(format!("{what}: {}", self.describe(errno)))
    }
}

/// Sets a variable of the environment unless the user has.
fn preset(name: &CStr, value: &CStr) {
    // SAFETY: both are strings. The environment changes only once in the life of the process, before the library is
    // loaded that reads these variables.
    unsafe { libc::setenv(name.as_ptr(), value.as_ptr(), 0) };
}

/// Looks up a function.
///
/// # Safety
/// `F` is the type of that function.
unsafe fn symbol<F: Copy>(handle: *mut c_void, name: &CStr) -> Result<F, Error> {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    // SAFETY: the handle is of a library that is open.
    let address = unsafe { libc::dlsym(handle, name.as_ptr()) };
    if address.is_null() {
        return Err(Error(format!("libfabric has no {}", name.to_string_lossy())));
    }
    // SAFETY: a function pointer is as large as the address, which is not null; the caller answers for the type.
    Ok(unsafe { std::mem::transmute_copy::<*mut c_void, F>(&address) })
}

fn load() -> Result<Library, Error> {
    // Memory of verbs devices is else not usable after a fork of the process.
    preset(c"RDMAV_FORK_SAFE", c"1");
    // With the default of 256, ofi_rxm over verbs asks for more receives than small devices have.
    preset(c"FI_UNIVERSE_SIZE", c"127");
    // libinfinipath, below the provider psm, else takes SIGTERM and SIGINT for itself and ends the process with status 1.
    preset(c"IPATH_NO_BACKTRACE", c"1");
    // Its cache of registrations finds by address what was registered before, and misses that memory was unmapped by a system
    // call of ours: the next mapping there would be written from the pages of the last.
    preset(c"FI_MR_CACHE_MAX_COUNT", c"0");
    let name = CString::from(c"libfabric.so.1");
    // SAFETY: loading runs the library's initializers, which expect nothing of this program.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if handle.is_null() {
        // SAFETY: dlerror returns a string or null.
        let reason = unsafe { libc::dlerror() };
        let reason = match reason.is_null() {
            true => String::from("unknown reason"),
            // SAFETY: it is not null, and valid until the next call of the family on this thread.
            false => unsafe { CStr::from_ptr(reason) }.to_string_lossy().into_owned(),
        };
        return Err(Error(format!("cannot load libfabric: {reason}")));
    }
    // SAFETY: the types are those of rdma/fabric.h and rdma/fi_errno.h; all come from the library just opened.
    let (library, version) = unsafe {
        let version: unsafe extern "C" fn() -> u32 = symbol(handle, c"fi_version")?;
        let version = version();
        let library = Library {
            version: version.min(fi_version(1, 17)),
            found: version,
            getinfo: symbol(handle, c"fi_getinfo")?,
            freeinfo: symbol(handle, c"fi_freeinfo")?,
            dupinfo: symbol(handle, c"fi_dupinfo")?,
            fabric: symbol(handle, c"fi_fabric")?,
            strerror: symbol(handle, c"fi_strerror")?,
        };
        (library, version)
    };
    if version < OLDEST {
        return Err(Error(format!("libfabric {}.{} is too old", version >> 16, version & 0xffff)));
    }
    Ok(library)
}
