//! What an ELF file says about how its program will be started.

use object::elf::{ET_DYN, ET_EXEC, FileHeader32, FileHeader64, Machine, NoteType, SHT_DYNSYM};
use object::read::elf::{FileHeader, ProgramHeader, SectionTable, Sym};
use object::read::{ReadCache, ReadRef};
use object::{Endianness, FileKind};
use std::fs::File;

/// Type of the note in which the Go linker names its build.
const GO_BUILD_ID: NoteType = NoteType(4);
/// Calls of a program that talks TCP by itself.
const SOCKET_CALLS: [&[u8]; 6] = [b"socket", b"connect", b"accept", b"accept4", b"listen", b"recv"];

/// The facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// 32 or 64.
    pub(super) bits: u8,
    pub(super) machine: Machine,
    /// Path of the dynamic linker; `None`: statically linked.
    pub(super) interpreter: Option<String>,
    /// Made by the Go linker.
    pub(super) go: bool,
    /// Whether it calls the socket functions itself; `None` if its symbols cannot be read.
    pub(super) sockets: Option<bool>,
    /// Whose library it is compiled for.
    pub(super) sanitizer: Option<Sanitizer>,
}

/// A checker that the compiler builds in, in a library of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sanitizer {
    Address,
    Thread,
}

impl Sanitizer {
    /// By the function with which the program starts it.
    fn started_by(name: &[u8]) -> Option<Self> {
        match name {
            b"__asan_init" => Some(Self::Address),
            b"__tsan_init" => Some(Self::Thread),
            _ => None,
        }
    }
}

/// Reads a file.
///
/// # Errors
/// Why it is not an ELF program, in words.
pub(super) fn read(file: File) -> Result<Facts, String> {
    // Programs may have hundreds of megabytes: only what is asked for is read.
    let cache = ReadCache::new(file);
    match FileKind::parse(&cache) {
        Ok(FileKind::Elf64) => facts::<FileHeader64<Endianness>, _>(&cache, 64),
        Ok(FileKind::Elf32) => facts::<FileHeader32<Endianness>, _>(&cache, 32),
        _ => Err("it is neither an ELF file nor a script that begins with #!".to_owned()),
    }
}

fn facts<'data, Header, Data>(data: Data, bits: u8) -> Result<Facts, String>
where
    Header: FileHeader<Endian = Endianness>,
    Data: ReadRef<'data>,
{
    let broken = |error: object::Error| format!("its ELF headers are broken ({error})");
    let header = Header::parse(data).map_err(broken)?;
    let endian = header.endian().map_err(broken)?;
    if !matches!(header.e_type(endian), ET_EXEC | ET_DYN) {
        return Err("it is an ELF file, but not a program".to_owned());
    }
    let mut interpreter = None;
    let mut go = false;
    for segment in header.program_headers(endian, data).map_err(broken)? {
        if let Some(path) = segment.interpreter(endian, data).map_err(broken)? {
            interpreter = Some(String::from_utf8_lossy(path).into_owned());
        }
        if let Ok(Some(mut notes)) = segment.notes(endian, data) {
            while let Ok(Some(note)) = notes.next() {
                go |= note.name() == b"Go" && note.n_type(endian) == GO_BUILD_ID;
            }
        }
    }
    let sections = header.sections(endian, data).ok();
    let names = [&b".go.buildinfo"[..], b".note.go.buildid"];
    go |= sections
        .as_ref()
        .is_some_and(|all| names.iter().any(|name| all.section_by_name(endian, name).is_some()));
    let imports = sections.and_then(|all| imports(endian, data, &all)).filter(|names| !names.is_empty());
    Ok(Facts {
        bits,
        machine: header.e_machine(endian),
        interpreter,
        go,
        sockets: imports.as_ref().map(|names| names.iter().any(|name| SOCKET_CALLS.contains(name))),
        sanitizer: imports.and_then(|names| names.into_iter().find_map(Sanitizer::started_by)),
    })
}

/// The names of what the program takes from libraries.
fn imports<'data, Header, Data>(
    endian: Endianness,
    data: Data,
    sections: &SectionTable<'data, Header, Data>,
) -> Option<Vec<&'data [u8]>>
where
    Header: FileHeader<Endian = Endianness>,
    Data: ReadRef<'data>,
{
    let symbols = sections.symbols(endian, data, SHT_DYNSYM).ok()?;
    let undefined = symbols.iter().filter(|symbol| symbol.is_undefined(endian));
    Some(undefined.filter_map(|symbol| symbol.name(endian, symbols.strings()).ok()).collect())
}
