//! libfabric's objects, each closed when it is dropped, and the calls on them. Errors are the library's numbers, not
//! negated.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::os::fd::RawFd;
use std::ptr::{NonNull, null_mut};

use super::bindings::*;
use super::info::{Info, Offer};
use super::library::Library;

/// A structure that begins with a `fid`.
///
/// # Safety
/// It does, and it is the type of objects that libfabric makes.
pub unsafe trait Class {}
// SAFETY: all of them are `repr(C)` and have the `fid` as their first field.
unsafe impl Class for fid_fabric {}
// SAFETY: as above.
unsafe impl Class for fid_domain {}
// SAFETY: as above.
unsafe impl Class for fid_ep {}
// SAFETY: as above.
unsafe impl Class for fid_pep {}
// SAFETY: as above.
unsafe impl Class for fid_eq {}
// SAFETY: as above.
unsafe impl Class for fid_cq {}
// SAFETY: as above.
unsafe impl Class for fid_av {}
// SAFETY: as above.
unsafe impl Class for fid_mr {}

/// An object of the library. Whoever holds it drops it before what it was made from.
pub struct Object<T: Class> {
    pointer: NonNull<T>,
    owned: PhantomData<T>,
}

// SAFETY: the library's objects are not tied to threads; the rail that owns them is used by one thread at a time.
unsafe impl<T: Class> Send for Object<T> {}

type Result<T> = std::result::Result<T, i32>;

pub(super) fn check(status: i32) -> Result<()> {
    if status < 0 { Err(status.wrapping_neg()) } else { Ok(()) }
}

pub(super) fn check_size(status: isize) -> Result<usize> {
    usize::try_from(status).map_err(|_| i32::try_from(status.wrapping_neg()).unwrap_or(libc::EIO))
}

/// Calls through a table; what a provider does not have is ENOSYS.
///
/// The safety of the expansion is the caller's: the table is null or a table of the library's, of an object that is
/// open, and the arguments are what that function expects.
macro_rules! call {
    ($table:expr, $operation:ident ( $($argument:expr),* $(,)? )) => {
        match $table.as_ref().and_then(|table| table.$operation) {
            Some(function) => function($($argument),*),
            None => -libc::ENOSYS as _,
        }
    };
}

pub(super) use call;

impl<T: Class> Object<T> {
    /// Takes over an object that a call has made.
    fn made(status: i32, pointer: *mut T) -> Result<Object<T>> {
        check(status)?;
        let pointer = NonNull::new(pointer).ok_or(libc::EIO)?;
        Ok(Object { pointer, owned: PhantomData })
    }

    /// For the calls of the class.
    pub(super) fn raw(&self) -> *mut T {
        self.pointer.as_ptr()
    }

    /// The part that all objects have; also what events name an object by.
    pub fn fid(&self) -> *mut fid {
        self.pointer.as_ptr().cast()
    }

    /// fi_endpoint(3) and others: connects two objects.
    pub fn bind<U: Class>(&self, other: &Object<U>, flags: u64) -> Result<()> {
        // SAFETY: both objects are open.
        check(unsafe { call!((*self.fid()).ops, bind(self.fid(), other.fid(), flags)) })
    }

    /// fi_enable(3).
    pub fn enable(&self) -> Result<()> {
        // SAFETY: the object is open, and FI_ENABLE takes no argument.
        check(unsafe { call!((*self.fid()).ops, control(self.fid(), FI_ENABLE, null_mut())) })
    }

    /// The descriptor to wait on.
    pub fn descriptor(&self) -> Result<RawFd> {
        let mut descriptor: RawFd = -1;
        let into: *mut RawFd = &mut descriptor;
        // SAFETY: objects opened with FI_WAIT_FD store an `int`.
        check(unsafe { call!((*self.fid()).ops, control(self.fid(), FI_GETWAIT, into.cast())) })?;
        Ok(descriptor)
    }
}

impl<T: Class> Drop for Object<T> {
    fn drop(&mut self) {
        // SAFETY: the object is open, and not used any more.
        let _: i32 = unsafe { call!((*self.fid()).ops, close(self.fid())) };
    }
}

impl Object<fid_fabric> {
    pub fn open(library: &Library, offer: Offer<'_>) -> Result<Self> {
        let mut made = null_mut();
        // SAFETY: the attributes are of an info of this library.
        let status = unsafe { (library.fabric)(offer.fabric_attr(), &mut made, null_mut()) };
        Self::made(status, made)
    }

    pub fn domain(&self, info: &Info) -> Result<Object<fid_domain>> {
        let mut made = null_mut();
        // SAFETY: the fabric is open, and the info of its library.
        let status =
            unsafe { call!((*self.raw()).ops, domain(self.raw(), info.as_ptr(), &mut made, null_mut())) };
        Object::made(status, made)
    }

    pub fn passive_endpoint(&self, info: &Info) -> Result<Object<fid_pep>> {
        let mut made = null_mut();
        // SAFETY: the fabric is open, and the info of its library.
        let status =
            unsafe { call!((*self.raw()).ops, passive_ep(self.raw(), info.as_ptr(), &mut made, null_mut())) };
        Object::made(status, made)
    }

    pub fn event_queue(&self, wait_obj: i32) -> Result<Object<fid_eq>> {
        let mut attr = fi_eq_attr { size: 0, flags: 0, wait_obj, signaling_vector: 0, wait_set: null_mut() };
        let mut made = null_mut();
        // SAFETY: the fabric is open; the attributes are read during the call.
        let status =
            unsafe { call!((*self.raw()).ops, eq_open(self.raw(), &mut attr, &mut made, null_mut())) };
        Object::made(status, made)
    }

    /// fi_trywait(3).
    pub fn try_wait(&self, objects: &mut [*mut fid]) -> Result<()> {
        let count = i32::try_from(objects.len()).map_err(|_| libc::EINVAL)?;
        // SAFETY: the objects are open queues of this fabric, which the caller holds.
        check(unsafe { call!((*self.raw()).ops, trywait(self.raw(), objects.as_mut_ptr(), count)) })
    }
}

impl Object<fid_domain> {
    pub fn completion_queue(&self, size: usize, wait_obj: i32) -> Result<Object<fid_cq>> {
        let format = FI_CQ_FORMAT_DATA;
        let mut attr = fi_cq_attr {
            size,
            flags: 0,
            format,
            wait_obj,
            signaling_vector: 0,
            wait_cond: 0,
            wait_set: null_mut(),
        };
        let mut made = null_mut();
        // SAFETY: the domain is open; the attributes are read during the call.
        let status =
            unsafe { call!((*self.raw()).ops, cq_open(self.raw(), &mut attr, &mut made, null_mut())) };
        Object::made(status, made)
    }

    pub fn address_vector(&self) -> Result<Object<fid_av>> {
        let mut attr = fi_av_attr {
            type_: FI_AV_UNSPEC,
            rx_ctx_bits: 0,
            count: 0,
            ep_per_node: 0,
            name: std::ptr::null(),
            map_addr: null_mut(),
            flags: 0,
        };
        let mut made = null_mut();
        // SAFETY: the domain is open; the attributes are read during the call.
        let status =
            unsafe { call!((*self.raw()).ops, av_open(self.raw(), &mut attr, &mut made, null_mut())) };
        Object::made(status, made)
    }

    pub fn endpoint(&self, info: &Info) -> Result<Object<fid_ep>> {
        let mut made = null_mut();
        // SAFETY: the domain is open, and the info of its library.
        let status =
            unsafe { call!((*self.raw()).ops, endpoint(self.raw(), info.as_ptr(), &mut made, null_mut())) };
        Object::made(status, made)
    }

    /// fi_mr_reg(3).
    ///
    /// # Safety
    /// The range stays mapped, for what `access` says, as long as the registration.
    pub unsafe fn register(
        &self,
        base: *const u8,
        bytes: usize,
        access: u64,
        key: u64,
    ) -> Result<Object<fid_mr>> {
        let mut made = null_mut();
        // SAFETY: the domain is open; the range is the caller's affair.
        let status = unsafe {
            let domain = self.fid();
            call!((*self.raw()).mr, reg(domain, base.cast(), bytes, access, 0, key, 0, &mut made, null_mut()))
        };
        Object::made(status, made)
    }
}

impl Object<fid_mr> {
    /// What operations name local memory by.
    pub fn descriptor_word(&self) -> *mut c_void {
        // SAFETY: the registration is open.
        unsafe { (*self.raw()).mem_desc }
    }

    /// What peers name the memory by.
    pub fn key(&self) -> u64 {
        // SAFETY: the registration is open.
        unsafe { (*self.raw()).key }
    }
}

impl Object<fid_av> {
    /// Adds one address, and returns the number of it.
    pub fn insert(&self, address: &[u8]) -> Result<u64> {
        let mut number = FI_ADDR_UNSPEC;
        // SAFETY: the table is open; the caller has compared the address' length with that of the own one.
        let count = unsafe {
            call!(
                (*self.raw()).ops,
                insert(self.raw(), address.as_ptr().cast(), 1, &mut number, 0, null_mut())
            )
        };
        check(count)?;
        if count == 1 { Ok(number) } else { Err(libc::EINVAL) }
    }

    pub fn remove(&self, mut number: u64) {
        // SAFETY: the table is open.
        let _: i32 = unsafe { call!((*self.raw()).ops, remove(self.raw(), &mut number, 1, 0)) };
    }
}

impl Object<fid_cq> {
    /// fi_cq_read(3): how many entries there were.
    pub fn read(&self, entries: &mut [std::mem::MaybeUninit<fi_cq_data_entry>]) -> Result<usize> {
        // SAFETY: the queue is open with the format of these entries, and there is room for as many.
        check_size(unsafe {
            call!((*self.raw()).ops, read(self.raw(), entries.as_mut_ptr().cast(), entries.len()))
        })
    }

    /// fi_cq_readerr(3).
    pub fn read_error(&self) -> Result<fi_cq_err_entry> {
        // SAFETY: all fields may be zero.
        let mut entry: fi_cq_err_entry = unsafe { std::mem::zeroed() };
        // SAFETY: the queue is open; without a buffer for it, the provider keeps its data to itself.
        let count = check_size(unsafe { call!((*self.raw()).ops, readerr(self.raw(), &mut entry, 0)) })?;
        if count == 0 { Err(libc::EAGAIN) } else { Ok(entry) }
    }
}
