//! Which functions an instruction of the library belongs to: its own and those that it was inlined into, as `addr2line`
//! reads them from the debug information.

use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::profile::{Call, Place};

/// A function of Convoy's sources at one place.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Frame {
    /// Without its module, type and arguments.
    pub(crate) function: String,
    /// Relative to the repository, without `src`: `runtime/iov.rs`.
    pub(crate) file: String,
    /// 0 where the compiler does not say.
    pub(crate) line: u32,
}

/// The frames of addresses in the library, innermost first; none of other projects' sources.
pub(crate) struct Frames(HashMap<u64, Vec<Frame>>);

impl Frames {
    /// Asks for all addresses of the given calls.
    pub(crate) fn of<'a>(library: &Path, calls: impl Iterator<Item = &'a Call>) -> Result<Self> {
        let addresses: BTreeSet<u64> = calls.flat_map(|call| &call.costs).filter_map(address).collect();
        let questions: String = addresses.iter().map(|address| format!("{address:#x}\n")).collect();
        let mut tool = Command::new("addr2line")
            .args(["--addresses", "--inlines", "--functions", "--demangle", "--exe"])
            .arg(library)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("addr2line (package binutils)")?;
        let mut input = tool.stdin.take().context("no pipe")?;
        let asker = std::thread::spawn(move || input.write_all(questions.as_bytes()));
        let output = tool.wait_with_output()?;
        asker.join().ok().context("addr2line was not asked")??;
        Ok(Self::read(&String::from_utf8_lossy(&output.stdout)))
    }

    /// An address in a line of its own, and then for each frame a line with the function and one with `file:line`.
    fn read(text: &str) -> Self {
        let mut frames: HashMap<u64, Vec<Frame>> = HashMap::new();
        let mut current = Vec::new();
        let mut lines = text.lines().rev();
        while let Some(line) = lines.next() {
            if let Some(Ok(address)) = line.strip_prefix("0x").map(|digits| u64::from_str_radix(digits, 16)) {
                current.reverse();
                frames.insert(address, std::mem::take(&mut current));
            } else if let Some(function) = lines.next() {
                current.extend(frame(function, line));
            }
        }
        Self(frames)
    }

    /// The frames at a place, innermost first.
    pub(crate) fn at(&self, place: &Place) -> &[Frame] {
        match place {
            Place::Library(address) => self.0.get(address).map_or(&[], Vec::as_slice),
            Place::Elsewhere(_) => &[],
        }
    }
}

fn address(cost: &crate::profile::Cost) -> Option<u64> {
    match cost.place {
        Place::Library(address) => Some(address),
        Place::Elsewhere(_) => None,
    }
}

/// The frame, if it is Convoy's: its crates lie directly in the directory that is the repository.
fn frame(function: &str, place: &str) -> Option<Frame> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let (file, line) = place.split(" (").next()?.rsplit_once(':')?;
    let file = Path::new(file).strip_prefix(repository).ok()?.to_string_lossy().replace("/src/", "/");
    Some(Frame { function: plain(function), file, line: line.parse().unwrap_or(0) })
}

/// `<a::B<C>>::d::{closure#0}` is `d::{closure#0}`.
fn plain(function: &str) -> String {
    let mut depth = 0_u32;
    let outside = |letter: &char| {
        match letter {
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            _ => return depth == 0,
        }
        false
    };
    let bare: String = function.chars().filter(outside).collect();
    let mut parts = bare.split("::").filter(|part| !part.is_empty()).collect::<Vec<_>>();
    let closures = parts.iter().rev().take_while(|part| part.starts_with('{')).count();
    parts.drain(..parts.len().saturating_sub(closures + 1));
    parts.join("::")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_without_their_modules() {
        assert_eq!(plain("convoy_runtime::channel::<impl convoy::Channel<A>>::send"), "send");
        assert_eq!(plain("convoy_runtime::stream::send::{closure#0}"), "send::{closure#0}");
        assert_eq!(plain("at"), "at");
    }

    #[test]
    fn frames_are_convoys_own_innermost_first() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(|root| root.display().to_string());
        let root = root.unwrap_or_default();
        let text = format!(
            "0x0010\nload\n/rustc/core/atomic.rs:3\nat\n{root}/runtime/src/socket.rs:14 (discriminator 2)\nsend\n{root}/runtime/src/stream.rs:?\n"
        );
        let frames = Frames::read(&text);
        let frame =
            |function: &str, file: &str, line| Frame { function: function.into(), file: file.into(), line };
        assert_eq!(
            frames.at(&Place::Library(0x10)),
            [frame("at", "runtime/socket.rs", 14), frame("send", "runtime/stream.rs", 0)]
        );
    }
}
