//! A core file (core(5)): the parts of memory that it has, and whose they were. Only what is asked for is read: core files may
//! have gigabytes.

use object::elf::{ET_CORE, FileHeader64, NT_FILE, NT_PRPSINFO, NoteType, PT_LOAD};
use object::read::ReadCache;
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, FileKind};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Most notes and parts that are looked at.
const MOST_PARTS: usize = 1 << 17;

/// A part of memory: its addresses, and where the file has it.
#[derive(Debug)]
struct Part {
    addresses: Range<u64>,
    offset: u64,
}

/// A mapped file.
#[derive(Debug)]
struct Mapped {
    addresses: Range<u64>,
    convoy: bool,
}

/// An opened core file.
pub(crate) struct Core {
    file: File,
    /// Sorted by address.
    parts: Vec<Part>,
    mapped: Vec<Mapped>,
    /// Process id and name of its program, where the file says so.
    pub(crate) process: Option<(u32, String)>,
}

impl Core {
    /// Opens a core file of this kind of machine.
    ///
    /// # Errors
    /// Why it is none, in words.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let file = File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
        let cache = ReadCache::new(file.try_clone().map_err(|error| error.to_string())?);
        match FileKind::parse(&cache) {
            Ok(FileKind::Elf64) => {}
            _ => return Err("is not a core file of a 64-bit program".to_owned()),
        }
        let broken = |error: object::Error| format!("has broken ELF headers ({error})");
        let header = FileHeader64::<Endianness>::parse(&cache).map_err(broken)?;
        let endian = header.endian().map_err(broken)?;
        if header.e_type(endian) != ET_CORE {
            return Err("is an ELF file, but not a core file".to_owned());
        }
        let mut core = Self { file, parts: Vec::new(), mapped: Vec::new(), process: None };
        for segment in header.program_headers(endian, &cache).map_err(broken)?.iter().take(MOST_PARTS) {
            if segment.p_type(endian) == PT_LOAD {
                let start = segment.p_vaddr(endian);
                let end = start.saturating_add(segment.p_filesz(endian));
                core.parts.push(Part { addresses: start..end, offset: segment.p_offset(endian) });
            }
            if let Ok(Some(mut notes)) = segment.notes(endian, &cache) {
                while let Ok(Some(note)) = notes.next() {
                    core.take_note(note.n_type(endian), note.desc());
                }
            }
        }
        core.parts.sort_by_key(|part| part.addresses.start);
        Ok(core)
    }

    fn take_note(&mut self, kind: NoteType, content: &[u8]) {
        if kind == NT_PRPSINFO && self.process.is_none() {
            self.process = about(content);
        } else if kind == NT_FILE && self.mapped.is_empty() {
            self.mapped = files(content).unwrap_or_default();
        }
    }

    /// Fills `into` from an address; nothing unless the file has all of it.
    pub(super) fn read(&self, address: u64, into: &mut [u8]) -> Option<()> {
        let mut at = address;
        let mut rest = into;
        while !rest.is_empty() {
            let after = self.parts.partition_point(|part| part.addresses.start <= at);
            let part = self.parts.get(after.checked_sub(1)?).filter(|part| part.addresses.contains(&at))?;
            let length = (part.addresses.end - at).min(rest.len() as u64) as usize;
            let (now, later) = rest.split_at_mut(length);
            self.file.read_exact_at(now, part.offset.checked_add(at - part.addresses.start)?).ok()?;
            at = at.checked_add(length as u64)?;
            rest = later;
        }
        Some(())
    }

    /// Where the anchor may lie: data of libconvoy.so, of other mapped files, and last anything, for files without a list.
    pub(super) fn places_for_anchor(&self) -> Vec<Range<u64>> {
        let named = self.mapped.iter().filter(|file| file.convoy);
        let others = self.mapped.iter().filter(|file| !file.convoy);
        let listed = named.chain(others).map(|file| file.addresses.clone());
        let present = listed.filter_map(|range| self.present(&range));
        if self.mapped.is_empty() {
            return self.parts.iter().map(|part| part.addresses.clone()).collect();
        }
        present.collect()
    }

    /// What of a range the file has.
    fn present(&self, range: &Range<u64>) -> Option<Range<u64>> {
        let part = self.parts.iter().find(|part| part.addresses.contains(&range.start))?;
        let end = range.end.min(part.addresses.end);
        (range.start < end).then_some(range.start..end)
    }
}

/// Process id and name of NT_PRPSINFO (struct elf_prpsinfo of the kernel, 64-bit).
fn about(content: &[u8]) -> Option<(u32, String)> {
    let pid = u32::from_ne_bytes(content.get(24..28)?.try_into().ok()?);
    let name = content.get(40..56)?.split(|byte| *byte == 0).next()?;
    Some((pid, String::from_utf8_lossy(name).into_owned()))
}

/// The mapped files of NT_FILE: count, page size, then start, end and page of each, then their names.
fn files(content: &[u8]) -> Option<Vec<Mapped>> {
    let word = |index: usize| super::memory::word(content, index.checked_mul(8)?);
    let count = usize::try_from(word(0)?).ok().filter(|count| *count <= MOST_PARTS)?;
    let names = content.get(16 + count.checked_mul(24)?..)?.split(|byte| *byte == 0);
    let entries = (0..count).zip(names).map(|(index, name)| {
        let convoy = name.windows(6).any(|part| part == b"convoy");
        Some(Mapped { addresses: word(2 + 3 * index)?..word(3 + 3 * index)?, convoy })
    });
    entries.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_core_file_is_refused() {
        assert!(Core::open(Path::new("/nonexistent")).is_err());
        assert!(Core::open(Path::new("/etc/passwd")).is_err());
        let own = std::env::current_exe().unwrap();
        assert!(Core::open(&own).is_err_and(|why| why.contains("not a core file")));
    }

    #[test]
    fn a_list_of_files_may_be_garbage() {
        assert!(files(&[]).is_none());
        assert!(files(&[0xff; 64]).is_none());
        let mut content: Vec<u8> =
            [2u64, 4096, 0x1000, 0x2000, 0, 0x3000, 0x4000, 1].iter().flat_map(|w| w.to_ne_bytes()).collect();
        content.extend(b"/lib/a.so\0/opt/libconvoy.so\0");
        let found = files(&content).unwrap();
        assert_eq!(
            (found[1].addresses.clone(), found[1].convoy, found[0].convoy),
            (0x3000..0x4000, true, false)
        );
        assert!(files(&content[..40]).is_none());
    }
}
