//! What callgrind wrote down: the instructions of each counted call, by the place of the instruction.
//!
//! Callgrind gives for every instruction what it cost itself, and for every instruction that calls a function what was
//! spent until that returned. Format: callgrind-format in valgrind's documentation, with uncompressed names and
//! positions.

use std::path::Path;

use anyhow::{Context, Result};

/// Functions with this prefix make the counted calls.
pub(crate) const COUNTED: &str = "counted_";

/// Where instructions were executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// At this address of libconvoy.so.
    Library(u64),
    /// In this function of another object.
    Elsewhere(String),
}

/// Instructions at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(crate) place: Place,
    pub(crate) instructions: u64,
    /// They are those of a function called from this place, which are told at their own places too.
    pub(crate) called: bool,
}

/// One counted call, without the function that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// What comes after [`COUNTED`] in the name of the function that made it.
    pub(crate) path: String,
    pub(crate) costs: Vec<Cost>,
}

impl Call {
    /// Instructions of the whole call.
    pub(crate) fn total(&self) -> u64 {
        self.costs.iter().filter(|cost| !cost.called).map(|cost| cost.instructions).sum()
    }
}

/// All calls that callgrind has written down in `text`; `program` is what it ran, whose instructions do not count.
pub(crate) fn calls(text: &str, program: &Path, library: &Path) -> Result<Vec<Call>> {
    let (program, library) = (program.to_string_lossy(), library.to_string_lossy());
    let dumps = text.split("\npart: ").skip(1);
    let calls =
        dumps.map(|dump| Reader { program: &program, library: &library, ..Reader::default() }.read(dump));
    // Before the first call and after the last there is nothing.
    Ok(calls.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// Reads one dump, line by line.
#[derive(Default)]
struct Reader<'a> {
    program: &'a str,
    library: &'a str,
    object: &'a str,
    function: &'a str,
    /// The next line of costs is about a function called there, so many times.
    calling: Option<u64>,
    path: Option<&'a str>,
    costs: Vec<Cost>,
}

impl<'a> Reader<'a> {
    fn read(mut self, dump: &'a str) -> Result<Option<Call>> {
        for line in dump.lines() {
            self.line(line).with_context(|| format!("callgrind wrote {line:?}"))?;
        }
        Ok(self.path.map(|path| Call { path: path.to_owned(), costs: self.costs }))
    }

    fn line(&mut self, line: &'a str) -> Result<()> {
        if let Some(object) = line.strip_prefix("ob=") {
            self.object = object;
        } else if let Some(function) = line.strip_prefix("fn=") {
            self.function = function;
            self.path = function.strip_prefix(COUNTED).or(self.path);
        } else if let Some(calls) = line.strip_prefix("calls=") {
            self.calling = Some(calls.split(' ').next().unwrap_or_default().parse()?);
        } else if let Some(costs) = line.strip_prefix("0x") {
            self.cost(costs)?;
        }
        Ok(())
    }

    /// A line of address, line number and instructions.
    fn cost(&mut self, line: &str) -> Result<()> {
        let mut words = line.split(' ');
        let address = u64::from_str_radix(words.next().unwrap_or_default(), 16)?;
        let instructions = words.next_back().unwrap_or_default().parse()?;
        let calling = self.calling.take();
        // Functions that are still running are said to have made no call.
        if self.object == self.program || calling == Some(0) {
            return Ok(());
        }
        let place = if self.object == self.library {
            Place::Library(address)
        } else {
            Place::Elsewhere(self.function.to_owned())
        };
        self.costs.push(Cost { place, instructions, called: calling.is_some() });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\npart: 1\n\nob=/program\nfn=counted_send\n0x10 1 2\ncob=/library\ncfn=send\ncalls=1 0x20 5\n0x12 1 30\n\n\
        ob=/library\nfn=send\n0x20 5 10\ncalls=1 0x90 7\n0x24 6 20\n\nob=/libc\nfn=memcpy\n0x90 7 20\n\n\
        ob=/ld\nfn=start\ncalls=0 0x1 1\n0x2 1 30\n\ntotals: 32\n\npart: 2\n\ntotals: 0\n";

    #[test]
    fn a_call_is_what_its_maker_called() {
        let calls = calls(TEXT, Path::new("/program"), Path::new("/library"));
        let own = Cost { place: Place::Library(0x20), instructions: 10, called: false };
        let copying = Cost { place: Place::Library(0x24), instructions: 20, called: true };
        let copy = Cost { place: Place::Elsewhere("memcpy".into()), instructions: 20, called: false };
        let expected = Call { path: "send".into(), costs: vec![own, copying, copy] };
        assert_eq!(expected.total(), 30);
        assert_eq!(calls.ok(), Some(vec![expected]));
    }
}
