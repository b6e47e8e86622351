//! A child process: started with a leash, read line by line, waited for with a deadline, never left behind.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Error};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::cleanup;

/// How often a wait looks at a child that has closed its output but not ended yet.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
const CLOSING: Duration = Duration::from_secs(10);

/// A started program. Dropping it kills it.
pub(crate) struct Process {
    name: String,
    child: Child,
    lines: Receiver<String>,
    errors: PathBuf,
    ended: Option<Ended>,
}

/// What is known of a program that has ended.
#[derive(Clone, Copy)]
struct Ended {
    status: ExitStatus,
    cpu_seconds: f64,
}

/// The result of a program that ended well.
pub(crate) struct Finished {
    pub(crate) output: Vec<String>,
    /// User and system time, children included.
    pub(crate) cpu_seconds: f64,
}

impl Finished {
    /// Lines of the form `name number` as a map.
    pub(crate) fn values(&self) -> BTreeMap<String, f64> {
        self.output.iter().filter_map(|line| pair(line)).collect()
    }
}

/// A line of the form `name number`.
pub(crate) fn pair(line: &str) -> Option<(String, f64)> {
    let (name, value) = line.split_once(' ')?;
    Some((name.to_owned(), value.parse().ok()?))
}

impl Process {
    /// Starts `command` on `cpu` (or anywhere); what it says on stderr goes to the file `errors`.
    pub(crate) fn start(mut command: Command, cpu: Option<usize>, errors: PathBuf) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(std::fs::File::create(&errors)?);
        // SAFETY: between fork and exec only system calls are made: no allocation, no locks.
        unsafe { command.pre_exec(move || prepare(cpu)) };
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let output = child.stdout.take().ok_or_else(|| anyhow!("{name} has no output"))?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { name, child, lines, errors, ended: None })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The file that takes what it says on stderr.
    pub(crate) fn errors(&self) -> &Path {
        &self.errors
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of output.
    pub(crate) fn line(&mut self, limit: Duration) -> Result<String> {
        self.lines.recv_timeout(limit).map_err(|_| anyhow!("{} said nothing{}", self.name, self.complaint()))
    }

    /// Ends the program's standard input: the load servers exit then.
    pub(crate) fn release(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Sends a signal to this process only.
    pub(crate) fn signal(&self, signal: i32) {
        if self.ended.is_none() {
            // SAFETY: the child has not been waited for, so the number is still its own.
            unsafe { libc::kill(self.pid() as libc::pid_t, signal) };
        }
    }

    /// Waits for the end, killing the program at the deadline; a bad exit status is an error.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<Finished> {
        let deadline = Instant::now() + limit;
        let mut output = Vec::new();
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => output.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let state = self.state();
                    self.kill();
                    bail!("{} hung and was killed after {limit:?} {state}{}", self.name, self.complaint());
                }
            }
        }
        let ended = self.reap(deadline.max(Instant::now() + CLOSING))?;
        if !ended.status.success() {
            bail!("{} ended with {}{}", self.name, ended.status, self.complaint());
        }
        Ok(Finished { output, cpu_seconds: ended.cpu_seconds })
    }

    /// CPU time of all threads so far, in seconds.
    pub(crate) fn cpu_now(&self) -> f64 {
        let mut clock = 0;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: both results are live locals; the child has not been waited for.
        let known = unsafe {
            libc::clock_getcpuclockid(self.pid() as libc::pid_t, &raw mut clock) == 0
                && libc::clock_gettime(clock, &raw mut time) == 0
        };
        if known { time.tv_sec as f64 + time.tv_nsec as f64 / 1e9 } else { 0.0 }
    }

    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.poll_end(libc::WNOHANG)?.is_some())
    }

    fn reap(&mut self, deadline: Instant) -> Result<Ended> {
        loop {
            if let Some(ended) = self.poll_end(libc::WNOHANG)? {
                return Ok(ended);
            }
            if Instant::now() >= deadline {
                self.kill();
                bail!("{} closed its output but did not end, and was killed", self.name);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    fn poll_end(&mut self, flags: i32) -> Result<Option<Ended>> {
        if self.ended.is_some() {
            return Ok(self.ended);
        }
        let mut status = 0;
        // SAFETY: rusage is plain numbers, for which all zeroes is a value.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: both results are live locals, and the child is ours and not waited for yet.
        let pid = unsafe { libc::wait4(self.pid() as libc::pid_t, &raw mut status, flags, &raw mut usage) };
        if pid < 0 {
            return Err(Error::last_os_error()).with_context(|| format!("waiting for {}", self.name));
        }
        if pid > 0 {
            let cpu_seconds = seconds(usage.ru_utime) + seconds(usage.ru_stime);
            self.ended = Some(Ended { status: ExitStatus::from_raw(status), cpu_seconds });
        }
        Ok(self.ended)
    }

    fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        // An error here means that there is nothing left to wait for.
        let _ = self.poll_end(0);
    }

    /// Where a program that makes no progress stands: asleep in the kernel, or busy.
    fn state(&self) -> String {
        let place = std::fs::read_to_string(format!("/proc/{}/wchan", self.pid())).unwrap_or_default();
        let place =
            if matches!(place.as_str(), "" | "0") { "running".to_owned() } else { format!("in {place}") };
        format!("({place}, {:.1} s of CPU used)", self.cpu_now())
    }

    /// The last lines of stderr, to end an error message with.
    pub(crate) fn complaint(&self) -> String {
        let text = std::fs::read_to_string(&self.errors).unwrap_or_default();
        let last: Vec<&str> = text.lines().rev().take(3).collect();
        if last.is_empty() {
            String::new()
        } else {
            format!(": {}", last.into_iter().rev().collect::<Vec<_>>().join(" | "))
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn seconds(time: libc::timeval) -> f64 {
    time.tv_sec as f64 + time.tv_usec as f64 / 1e6
}

/// In the child: dies with the driver, takes its signals, and runs on `cpu` only.
fn prepare(cpu: Option<usize>) -> std::io::Result<()> {
    // SAFETY: PR_SET_PDEATHSIG takes a signal number.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    cleanup::unblock();
    if let Some(cpu) = cpu {
        // SAFETY: cpu_set_t is a plain bit set, for which all zeroes is the empty set.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: CPU_SET stays within the set for the small numbers used here; the size is the set's own.
        let result = unsafe {
            libc::CPU_SET(cpu, &mut set);
            libc::sched_setaffinity(0, size_of_val(&set), &raw const set)
        };
        if result < 0 {
            return Err(Error::last_os_error());
        }
    }
    Ok(())
}
