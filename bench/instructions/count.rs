//! Runs the program of single calls under callgrind, with Convoy and without, and reads what was counted.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::profile::{self, COUNTED, Call};

/// The same copying routines on every processor, whatever the C library would choose.
const SAME_EVERYWHERE: &str =
    "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX2,-AVX,-AVX_Fast_Unaligned_Load,-SSSE3,-ERMS,-FSRM";
/// Sends of one end that go through the kernel until it is promoted, at most.
const KERNEL_SENDS: u64 = 8;

/// What is run, and under what.
pub(crate) struct Counter {
    pub(crate) program: PathBuf,
    pub(crate) library: PathBuf,
}

impl Counter {
    /// The files beside this program.
    pub(crate) fn new() -> Result<Self> {
        let own = std::env::current_exe()?;
        let file = |name| {
            let path = own.with_file_name(name);
            path.canonicalize().with_context(|| format!("{} is not built", path.display()))
        };
        Ok(Self { program: file("load-calls")?, library: file("libconvoy.so")? })
    }

    /// All counted calls with Convoy, on connections that are known to be accelerated.
    pub(crate) fn with_convoy(&self) -> Result<Vec<Call>> {
        let directory = tempfile::tempdir()?;
        let counters = directory.path().join("counters.json");
        let mut command = self.command(directory.path());
        command
            .env("LD_PRELOAD", &self.library)
            .env("CONVOY_STATS", &counters)
            .env("CONVOY_DIR", directory.path());
        let (calls, said) = self.run(command, directory.path())?;
        let streams = said.trim().strip_prefix("streams ").context("the program did not say its streams")?;
        check_promoted(&counters, streams.parse()?)?;
        Ok(calls)
    }

    /// The calls on descriptors that are no sockets, without Convoy.
    pub(crate) fn without_convoy(&self) -> Result<Vec<Call>> {
        let directory = tempfile::tempdir()?;
        let mut command = self.command(directory.path());
        command.args(["--only", "foreign"]);
        Ok(self.run(command, directory.path())?.0)
    }

    fn command(&self, directory: &Path) -> Command {
        let mut command = Command::new("valgrind");
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("GLIBC_TUNABLES", SAME_EVERYWHERE).args(["--tool=callgrind", "--quiet"]);
        command.arg(format!("--callgrind-out-file={}", counts(directory).display()));
        command.arg(format!("--toggle-collect={COUNTED}*")).arg("--dump-after=write_down");
        command.args([
            "--combine-dumps=yes",
            "--dump-instr=yes",
            "--compress-strings=no",
            "--compress-pos=no",
        ]);
        command.arg(&self.program);
        command
    }

    /// The counted calls and what the program said.
    fn run(&self, mut command: Command, directory: &Path) -> Result<(Vec<Call>, String)> {
        let output = command.output().context("valgrind (package valgrind)")?;
        if !output.status.success() {
            bail!(
                "{} under valgrind: {}\n{}",
                self.program.display(),
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let text = std::fs::read_to_string(counts(directory))?;
        let calls = profile::calls(&text, &self.program, &self.library)?;
        Ok((calls, String::from_utf8_lossy(&output.stdout).into_owned()))
    }
}

fn counts(directory: &Path) -> PathBuf {
    directory.join("counts")
}

/// Both ends of all streams must have left the kernel at once, for good.
fn check_promoted(counters: &Path, streams: u64) -> Result<()> {
    let text = std::fs::read(counters).context("Convoy left no counters: it was not loaded")?;
    let counters: Value = serde_json::from_slice(&text)?;
    let get = |name: &str| counters[name].as_u64().unwrap_or(0);
    let ends = 2 * streams;
    ensure!(
        get("streams_opened") == ends
            && get("switches_to_channel") == ends
            && get("switches_to_kernel") == 0
            && get("kernel_sends") <= KERNEL_SENDS * ends,
        "not all of {ends} ends stayed accelerated: {counters}"
    );
    Ok(())
}
