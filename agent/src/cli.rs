//! The command line: what can be said, and the help.

use clap::{Args, Parser, Subcommand};
use convoy_runtime::config::VARIABLES;
use std::ffi::OsString;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Exit status for a command line that makes no sense.
pub(crate) const USAGE: u8 = 2;

const EXAMPLES: &str = "\
Examples:
  convoy run redis-server --port 6379   a server whose connections on this host are accelerated
  convoy run redis-benchmark -c 50      a client; both ends must run under Convoy
  convoy stat                           what your programs under Convoy are doing now
  convoy doctor nginx                   would nginx be accelerated, and is this machine fit?
  convoy dump 1234                      where every byte of process 1234's streams is
  convoy trace 1234                     what its streams do, line by line

'convoy COMMAND --help' tells more, and 'convoy run --help' lists all settings.";

/// Convoy lets unmodified programs talk TCP through shared memory.
///
/// It is loaded into a program with LD_PRELOAD, and connections between two programs on this host that both run
/// under it leave the kernel's TCP: small messages of many connections travel together. Everything else stays
/// as it was.
#[derive(Parser, Debug)]
#[command(name = "convoy", version, about, long_about, after_help = EXAMPLES, subcommand_required = true)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    Run(Run),
    Agent(Agent),
    Stat(Stat),
    Doctor(Doctor),
    Dump(Dump),
    Trace(Trace),
}

/// Run a program under Convoy
///
/// The program replaces this command: it has the same process id, and its exit status is the one you see. Where
/// CONVOY_FABRIC names a provider and no agent runs, one is started in the background.
#[derive(Args, Debug)]
#[command(after_help = "All settings: 'convoy run --help'.", after_long_help = run_help())]
pub(crate) struct Run {
    /// Change a setting, e.g. --set SPIN_US=20; may be given several times
    ///
    /// The CONVOY_ in front of the name may be left out. A setting given here wins over the environment.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub(crate) settings: Vec<String>,
    /// Load this library instead of the libconvoy.so that belongs to this command
    ///
    /// Without it: CONVOY_LIBRARY, then libconvoy.so beside this command, then in ../lib/convoy and ../lib.
    #[arg(long, value_name = "PATH")]
    pub(crate) library: Option<PathBuf>,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM ARGS")]
    pub(crate) program: Vec<OsString>,
}

/// Carry connections of this host's programs to other hosts, over RDMA
///
/// One agent per host: programs under Convoy find it by themselves, and it finds the agents of the hosts they
/// are connected to. It stays in the foreground, logs to stderr, and ends on SIGTERM. As root it serves all
/// users, otherwise its own. CONVOY_FABRIC chooses the provider: 'auto' takes the best RDMA device there is.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit status: 0 ended by a signal, or not needed any more; 1 it cannot start, or the key cannot be made; 2 wrong usage.")]
pub(crate) struct Agent {
    /// The key that all agents share; made with --new-key
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Make a key file and end
    #[arg(long, value_name = "FILE", exclusive = true)]
    pub(crate) new_key: Option<PathBuf>,
    /// Do without a key: whoever reaches the port is believed, and nothing is encrypted
    #[arg(long)]
    pub(crate) insecure: bool,
    /// The address to listen on for other agents [default: all]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<IpAddr>,
    /// The port on which all agents listen
    #[arg(long, value_name = "PORT", default_value_t = convoy_control::peers::config::DEFAULT_PORT)]
    pub(crate) port: u16,
    /// Connect to the agent at this address at once; may be given several times. Others are found when needed
    #[arg(long = "peer", value_name = "ADDRESS")]
    pub(crate) peers: Vec<IpAddr>,
    /// Which connections may be accelerated, and how much users may take (TOML); read again on SIGHUP
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Use only the device of this name or address; may be given several times
    #[arg(long = "rail", value_name = "NAME")]
    pub(crate) rails: Vec<String>,
    /// Answer GET /metrics (Prometheus), /health and /status there as well [default: on a Unix socket only]
    ///
    /// Only an address of loopback is taken, unless --insecure is given. Whoever reaches it learns the names of programs
    /// and hosts.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) metrics: Option<SocketAddr>,
    /// Keep all rights and system calls [default: those that are needed, see docs/security.md]
    #[arg(long)]
    pub(crate) no_sandbox: bool,
    /// End when no program was connected for so long [default: stay]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub(crate) idle_exit: Option<u64>,
    /// Take the place of the agent that runs, in mid-traffic: for an upgrade
    ///
    /// It hands over its sockets and the hosts that it knows, brings its streams back to TCP, and ends; they leave TCP again
    /// through this one. If their versions do not go together, this command says so and the running agent goes on.
    #[arg(long)]
    pub(crate) take_over: bool,
    /// Run in a session of its own, and return when programs can find it: for 'convoy run'
    #[arg(long, hide = true)]
    pub(crate) background: bool,
}

/// Show the counters of programs that run under Convoy now
///
/// Reading them costs the programs nothing. A program appears once it has used a TCP connection on this host. Where an
/// agent answers this user, its links to other hosts are shown too.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit status: 0 done; 1 the process PID does not run under Convoy, or the counters cannot be read; 2 wrong usage.")]
pub(crate) struct Stat {
    /// Only this process, with every counter and its meaning
    pub(crate) pid: Option<u32>,
    /// Print JSON for programs: an object with a list 'processes', and 'agent' if there is one
    #[arg(long)]
    pub(crate) json: bool,
    /// Print again every so many seconds, with numbers per second, until interrupted
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) watch: Option<f64>,
}

/// Tell whether a program would be accelerated, and whether this machine is fit
///
/// Without PROGRAM only the machine is looked at. Nothing is started or changed.
#[derive(Args, Debug)]
#[command(after_help = "Exit status: 0 yes; 1 no; 2 wrong usage, or there is no such program.")]
pub(crate) struct Doctor {
    /// A program: a path, or a name to be found in PATH
    pub(crate) program: Option<PathBuf>,
    /// The library that 'convoy run' would load; found as there if not given
    #[arg(long, value_name = "PATH")]
    pub(crate) library: Option<PathBuf>,
    /// Print JSON for programs
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show all state of a program's channels, from outside
///
/// For every stream: its addresses, the path of each direction, bytes sent, received and unread, credit, switches, and who waits;
/// the frames in the lanes; bells, blocks, locks. The program is neither stopped nor changed. Of a process that is gone, what its
/// peers still hold is shown.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Exit status: 0 done; 1 the process does not run under Convoy, in this version, or cannot be looked into; 2 wrong usage.")]
pub(crate) struct Dump {
    /// Only this process [default: all of yours that have used a TCP connection]
    pub(crate) pid: Option<u32>,
    /// A core file instead of a process
    #[arg(long, value_name = "FILE", conflicts_with = "pid")]
    pub(crate) core: Option<PathBuf>,
    /// Print JSON for programs: an object with a list 'processes'
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show the frames and path switches of a program's streams as they happen
///
/// One line for each event: a stream opens or closes, a frame is sent or received, a direction changes its path, credit is given, a
/// stream goes back to the kernel or is reset, with the reason. The program never waits for this; what comes too fast is counted as
/// lost. Payload is left out unless --bytes asks for it: it may hold secrets.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Exit status: 0 done; 1 the process does not run under Convoy, or cannot be traced; 2 wrong usage.")]
pub(crate) struct Trace {
    /// The process
    pub(crate) pid: u32,
    /// Write a pcapng file for Wireshark instead of lines; see dist/wireshark/convoy.lua
    #[arg(long, value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,
    /// End after so long [default: when interrupted, or with the process]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) seconds: Option<f64>,
    /// Keep that many bytes of each frame's payload
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=4096))]
    pub(crate) bytes: u16,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=86400.0).contains(&seconds) => Ok(seconds),
        _ => Err("allowed is a number from 0.1 to 86400".to_owned()),
    }
}

fn run_help() -> String {
    let mut help = String::from(
        "Exit status: the program's own; 125 this command failed; 126 the program cannot be run; \
         127 there is no such program.\n\nSettings (environment variables; sizes may end in K, M or G):",
    );
    for variable in VARIABLES {
        let (name, meaning) = (variable.name, variable.meaning);
        // Writing to a string cannot fail.
        let _ = write!(help, "\n\n  {name}\n    {meaning}\n    allowed: {}\n", variable.allowed);
        let _ = write!(help, "    default: {}", variable.default);
    }
    help
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_program_may_have_options_without_a_separator() {
        for words in [&["--port", "1"][..], &["--", "--port"], &["-c", "--set", "x"]] {
            let line = ["convoy", "run", "--set", "SPIN_US=1", "redis-server"].iter().chain(words);
            let Command::Run(run) = Cli::try_parse_from(line).unwrap().command else { panic!() };
            assert_eq!(run.settings, ["SPIN_US=1"]);
            assert_eq!(run.program[0], "redis-server");
            assert_eq!(&run.program[run.program.len() - 1], words[words.len() - 1]);
        }
        assert!(Cli::try_parse_from(["convoy", "run", "--bogus", "ls"]).is_err());
    }

    #[test]
    fn help_names_every_setting() {
        let help = run_help();
        assert!(VARIABLES.iter().all(|variable| help.contains(variable.name)));
    }

    #[test]
    fn seconds_are_checked() {
        assert_eq!(seconds("0.5"), Ok(0.5));
        assert!(["0", "-1", "x", "nan", "1e9"].iter().all(|text| seconds(text).is_err()));
    }
}
