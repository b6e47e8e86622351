//! Variadic functions whose arguments cannot be written as a fixed list: dprintf (floating point, any number)
//! and execl and its relatives (any number).

use core::arch::naked_asm;
use core::ffi::{CStr, c_char, c_int, c_void};

use super::process::{self, List};
use super::stdio;

/// A function that keeps every argument register, calls `$before` with the first argument and jumps to the
/// function it returns: 6 integer registers, `al` (how many vector registers are used) and 8 vector
/// registers.
macro_rules! jump_after {
    ($before:path) => {
        naked_asm!(
            "push rbp",
            "mov rbp, rsp",
            "sub rsp, 192",
            "mov [rsp], rdi",
            "mov [rsp + 8], rsi",
            "mov [rsp + 16], rdx",
            "mov [rsp + 24], rcx",
            "mov [rsp + 32], r8",
            "mov [rsp + 40], r9",
            "mov [rsp + 48], rax",
            "movaps [rsp + 64], xmm0",
            "movaps [rsp + 80], xmm1",
            "movaps [rsp + 96], xmm2",
            "movaps [rsp + 112], xmm3",
            "movaps [rsp + 128], xmm4",
            "movaps [rsp + 144], xmm5",
            "movaps [rsp + 160], xmm6",
            "movaps [rsp + 176], xmm7",
            "call {before}",
            "mov r11, rax",
            "mov rdi, [rsp]",
            "mov rsi, [rsp + 8]",
            "mov rdx, [rsp + 16]",
            "mov rcx, [rsp + 24]",
            "mov r8, [rsp + 32]",
            "mov r9, [rsp + 40]",
            "mov rax, [rsp + 48]",
            "movaps xmm0, [rsp + 64]",
            "movaps xmm1, [rsp + 80]",
            "movaps xmm2, [rsp + 96]",
            "movaps xmm3, [rsp + 112]",
            "movaps xmm4, [rsp + 128]",
            "movaps xmm5, [rsp + 144]",
            "movaps xmm6, [rsp + 160]",
            "movaps xmm7, [rsp + 176]",
            "leave",
            "jmp r11",
            before = sym $before,
        )
    };
}

/// A function that lays its arguments after the first in memory as one array (those in registers below those
/// that are on the stack already), and calls `$run` with the first argument and that array.
macro_rules! gather {
    ($run:path) => {
        naked_asm!(
            "pop rax",
            "push r9",
            "push r8",
            "push rcx",
            "push rdx",
            "push rsi",
            "mov rsi, rsp",
            "push rax",
            "call {run}",
            "pop rdx",
            "add rsp, 40",
            "push rdx",
            "ret",
            run = sym $run,
        )
    };
}

/// `dprintf(fd, format, ...)`: the stream goes back to the kernel, then libc sees the very same arguments.
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn dprintf() {
    jump_after!(before_dprintf)
}

/// `__dprintf_chk(fd, flag, format, ...)`, as [`dprintf`].
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn __dprintf_chk() {
    jump_after!(before_dprintf_chk)
}

/// `execl(path, argument, ..., NULL)`
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn execl() {
    gather!(run_execl)
}

/// `execlp(file, argument, ..., NULL)`
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn execlp() {
    gather!(run_execlp)
}

/// `execle(path, argument, ..., NULL, environment)`
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn execle() {
    gather!(run_execle)
}

extern "C" fn before_dprintf(fd: c_int) -> *mut c_void {
    stdio::leave(fd);
    find(c"dprintf")
}

extern "C" fn before_dprintf_chk(fd: c_int) -> *mut c_void {
    stdio::leave(fd);
    find(c"__dprintf_chk")
}

/// libc's own function of a name that the program has linked to, and that therefore exists.
fn find(name: &CStr) -> *mut c_void {
    // SAFETY: a terminated name.
    unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) }
}

extern "C" fn run_execl(path: *const c_char, arguments: List) -> c_int {
    // SAFETY: the program's strings, ended by its null.
    unsafe { process::on_execv(path, arguments) }
}

extern "C" fn run_execlp(file: *const c_char, arguments: List) -> c_int {
    // SAFETY: as above.
    unsafe { process::on_execvp(file, arguments) }
}

extern "C" fn run_execle(path: *const c_char, arguments: List) -> c_int {
    // SAFETY: as above; the environment follows the null.
    unsafe {
        let mut end = arguments;
        while !(*end).is_null() {
            end = end.add(1);
        }
        process::on_execve(path, arguments, (*end.add(1)).cast())
    }
}
