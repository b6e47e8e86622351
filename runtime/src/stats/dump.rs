//! The counters as JSON, written when the process ends.
//!
//! May run inside `_exit`, which a signal handler may call: nothing here allocates or takes a lock.

use super::layout::{LaneCounters, Page, Process};
use super::place;
use crate::config::{self, StatsTarget, settings};
use crate::sys;
use core::ffi::CStr;
use core::fmt::{self, Write};

/// Writes the counters to the target of CONVOY_STATS, if there is one: one flat JSON object and a line end.
pub fn dump() {
    let Some(target) = &settings().stats else {
        return;
    };
    match target {
        StatsTarget::Stderr => write_to(2),
        StatsTarget::File(path) => write_file(path, libc::O_TRUNC),
        StatsTarget::Directory(path) => {
            let mut file = Name { bytes: [0; NAME_BYTES], length: 0 };
            let path = path.to_str().unwrap_or_default();
            if write!(file, "{path}{}.json", sys::getpid()).is_ok()
                && let Ok(path) = CStr::from_bytes_until_nul(&file.bytes)
            {
                // The name can be guessed: in a directory that others can write, what is there may be a trap.
                let _ = sys::unlink(path);
                write_file(path, libc::O_EXCL | libc::O_NOFOLLOW);
            }
        }
    }
}

/// How much is sent, and when, is nobody else's business.
fn write_file(path: &CStr, flags: i32) {
    if let Err(errno) = sys::with_open(path, libc::O_WRONLY | libc::O_CREAT | flags, 0o600, write_to) {
        crate::log_warn!("CONVOY_STATS: cannot write {path:?}: {}", crate::log::Reason(errno));
    }
}

fn write_to(fd: i32) {
    let mut output = Output { fd, buffer: [0; 1024], length: 0 };
    // The output never reports an error: what cannot be written is lost.
    let _ = object(&mut output);
    output.flush();
}

fn object(output: &mut Output) -> fmt::Result {
    write!(output, "{{\"pid\": {}, \"program\": \"", sys::getpid())?;
    for byte in config::program() {
        match byte {
            b'"' | b'\\' => write!(output, "\\{}", char::from(*byte))?,
            0x20..=0x7e => output.write_char(char::from(*byte))?,
            _ => output.write_char('?')?,
        }
    }
    output.write_char('"')?;
    for (index, (name, _)) in Process::FIELDS.iter().enumerate() {
        write!(output, ", \"{name}\": {}", process_counter(index))?;
    }
    let mut sums = [0u64; LaneCounters::FIELDS.len()];
    for_pages(|page| sum_lanes(page, &mut sums));
    for ((name, _), sum) in LaneCounters::FIELDS.iter().zip(sums) {
        write!(output, ", \"{name}\": {sum}")?;
    }
    let [_, _, frames, _, batches, _] = sums;
    let hundredths = (u128::from(frames) * 100).checked_div(u128::from(batches)).unwrap_or(0);
    writeln!(output, ", \"messages_per_batch\": {}.{:02}}}", hundredths / 100, hundredths % 100)
}

/// The page in use, and the one before it if that is another.
fn for_pages(mut look: impl FnMut(&'static Page)) {
    look(place::page());
    if !core::ptr::eq(place::page(), place::own()) {
        look(place::own());
    }
}

fn process_counter(index: usize) -> u64 {
    let mut sum = 0u64;
    for_pages(|page| sum = sum.wrapping_add(page.process.all()[index].get()));
    sum
}

fn sum_lanes(page: &Page, sums: &mut [u64; LaneCounters::FIELDS.len()]) {
    for lane in &page.lanes {
        for (sum, counter) in sums.iter_mut().zip(lane.all()) {
            *sum = sum.wrapping_add(counter.get());
        }
    }
}

/// A small buffer in front of a descriptor.
struct Output {
    fd: i32,
    buffer: [u8; 1024],
    length: usize,
}

impl Output {
    fn flush(&mut self) {
        let mut rest = &self.buffer[..self.length];
        while !rest.is_empty() {
            match sys::write_text(self.fd, rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(libc::EINTR) => {}
                Err(_) => break,
            }
        }
        self.length = 0;
    }
}

impl Write for Output {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.length == self.buffer.len() {
                self.flush();
            }
            self.buffer[self.length] = byte;
            self.length += 1;
        }
        Ok(())
    }
}

const NAME_BYTES: usize = 4096;

/// A path under construction; always ends with a zero byte.
struct Name {
    bytes: [u8; NAME_BYTES],
    length: usize,
}

impl Write for Name {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        if end >= NAME_BYTES {
            return Err(fmt::Error);
        }
        self.bytes[self.length..end].copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}
