//! What the agent is started with: from the command line to a running engine. A wrong setting is one line.

use super::background;
use super::engine::{Engine, Rail};
use super::sandbox::{self, Rights};
use super::serve::{self, Served};
use super::signals::Signals;
use super::status::Board;
use super::wait::{Token, Waiter};
use super::wire::Wire;
use crate::cli::Agent as Options;
use crate::{Failure, Outcome, contact};
use convoy_aggregator::gather::Thresholds;
use convoy_control::hello::{Hello, Versions};
use convoy_control::key::Key;
use convoy_control::peers::{Config, Events, Peers};
use convoy_control::policy::Policy;
use convoy_fabric::libfabric::{self, Placement, RailInfo, discover};
use convoy_runtime::agent::server::{self, Server};
use convoy_runtime::config::{self, Fabric, Gather, Settings};
use if_addrs::IfAddr;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Exit status when the agent cannot start.
const CANNOT_START: u8 = 1;
/// Versions of the protocol between agents.
const PROTOCOL: Versions = Versions { min: 2, max: 2 };
/// How long the engine looks on after its last work before it sleeps.
const SPIN: Duration = Duration::from_micros(30);
/// How long to wait for another network than loopback.
const NETWORK_PATIENCE: Duration = Duration::from_secs(2);

/// Everything an engine needs.
pub(super) struct Setup {
    pub(super) rails: Vec<Rail>,
    pub(super) policy: Policy,
    pub(super) policy_file: Option<PathBuf>,
    pub(super) peers: Peers,
    pub(super) from_peers: Events,
    pub(super) server: Server,
    pub(super) waiter: Waiter,
    pub(super) signals: Signals,
    pub(super) thresholds: Thresholds,
    pub(super) small: u32,
    pub(super) network: u64,
    pub(super) instance: u128,
    pub(super) spin: Duration,
    pub(super) board: Arc<Board>,
    pub(super) idle_exit: Option<Duration>,
}

/// `convoy agent`.
pub(crate) fn agent(options: &Options) -> Outcome {
    if let Some(path) = &options.new_key {
        Key::create(path).map_err(cannot)?;
        return Ok(0);
    }
    if options.background {
        return background::start();
    }
    let (settings, complaints) = config::read(std::env::vars_os().collect());
    complaints.iter().for_each(|complaint| eprintln!("convoy: warn: {}", complaint.text));
    start_log(&settings);
    let (setup, _served) = Setup::new(options, &settings)?;
    let mut engine = Engine::new(setup);
    engine.run();
    tracing::info!("agent ends");
    engine.shut_down();
    Ok(0)
}

/// Everything is open: from now on the agent can do little else. One line says what is on.
fn confine(rights: Option<Result<Rights, rustix::io::Errno>>) {
    match rights.map(|rights| rights.map_err(|error| error.to_string())) {
        None => tracing::warn!("sandbox is off: --no-sandbox"),
        Some(rights) => match rights.and_then(|rights| Ok((rights, sandbox::confine()?))) {
            Ok((rights, calls)) => {
                tracing::info!(calls, capabilities = %rights, "sandbox is on: seccomp, no new privileges");
            }
            Err(error) => tracing::warn!(error, "sandbox is not on"),
        },
    }
}

fn cannot(error: impl std::fmt::Display) -> Failure {
    Failure::new(CANNOT_START, error.to_string())
}

fn start_log(settings: &Settings) {
    let level = match settings.log {
        config::LogLevel::Off | config::LogLevel::Error => tracing::Level::ERROR,
        config::LogLevel::Warn | config::LogLevel::Info => tracing::Level::INFO,
        config::LogLevel::Debug => tracing::Level::DEBUG,
    };
    tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false).init();
}

impl Setup {
    fn new(options: &Options, settings: &Settings) -> Result<(Self, Served), Failure> {
        check_metrics(options)?;
        let rights = (!options.no_sandbox).then(|| sandbox::drop_rights(Rights::needed(options.port)));
        raise_descriptor_limit();
        let network = server::network_of(None).map_err(|error| {
            cannot(format!("this kernel does not tell network namespaces apart (Linux 5.14 does): {error}"))
        })?;
        let waiter = Waiter::new().map_err(cannot)?;
        let policy = match &options.policy {
            Some(path) => Policy::read(path).map_err(cannot)?,
            None => Policy::default(),
        };
        let rails = rails(options, settings)?;
        for rail in &rails {
            tracing::info!(rail = rail.fabric.name(), "rail");
        }
        // After libfabric was loaded: some of its providers' libraries take SIGTERM for themselves.
        let signals = Signals::new().map_err(cannot)?;
        waiter.add(signals.as_fd(), Token::Signal).map_err(cannot)?;
        let (peers, from_peers, instance) = peers(options, &waiter)?;
        let (server, path) = server(settings, network)?;
        let board = Arc::new(Board::new());
        // Who may read the metrics learns the same there.
        let mode = if options.metrics.is_some() { 0o666 } else { 0o600 };
        let path = contact::status_path(&path);
        let served = serve::start(&path, mode, options.metrics, Arc::clone(&board)).map_err(cannot)?;
        if let Some(address) = served.metrics {
            tracing::info!(%address, "metrics");
        }
        waiter.add(server.as_fd(), Token::Server).map_err(cannot)?;
        for rail in &rails {
            if let Some(fd) = rail.fabric.wait_descriptor() {
                waiter.add_raw(fd, Token::Rail).map_err(cannot)?;
            }
        }
        confine(rights);
        tracing::info!(listen = %peers.local_addr(), "agent is ready");
        let setup = Self {
            rails,
            policy,
            policy_file: options.policy.clone(),
            peers,
            from_peers,
            server,
            waiter,
            signals,
            thresholds: Thresholds {
                bytes: settings.batch_bytes,
                frames: settings.batch_frames,
                delay_us: settings.batch_delay_us,
            },
            small: settings.coalesce_max,
            network,
            instance,
            spin: SPIN,
            board,
            idle_exit: options.idle_exit.map(Duration::from_secs),
        };
        Ok((setup, served))
    }
}

/// The fabric's devices on this host, as CONVOY_FABRIC wants them.
fn rails(options: &Options, settings: &Settings) -> Result<Vec<Rail>, Failure> {
    let wanted = match &settings.fabric {
        Fabric::Auto => "auto",
        Fabric::Provider(name) => name,
        Fabric::Shm | Fabric::Off => {
            return Err(Failure::new(CANNOT_START, "CONVOY_FABRIC allows no fabric between hosts"));
        }
    };
    let is_named = |rail: &RailInfo, name: &String| {
        rail.domain == *name || rail.address.is_some_and(|address| address.to_string() == *name)
    };
    let chosen = discover_patiently(wanted)
        .into_iter()
        .filter(|rail| options.rails.is_empty() || options.rails.iter().any(|name| is_named(rail, name)));
    let prefixes = prefixes();
    let mut rails = Vec::new();
    for info in chosen {
        match libfabric::open(&info.provider, Some(&info.local()), Placement::Best) {
            Ok(fabric) => {
                let limits = fabric.limits();
                let (provider, device, at) = (info.provider.clone(), info.domain.clone(), info.address);
                let wire = Wire::of(&provider, &device, limits.one_sided, at);
                let prefix = at.and_then(|at| prefixes.get(&at).copied()).unwrap_or(0);
                let worth_always = settings.gather == Gather::Always || is_card(&provider, &device);
                rails.push(Rail { fabric, limits, provider, device, at, prefix, wire, worth_always });
            }
            Err(error) => {
                tracing::warn!(provider = info.provider, rail = info.domain, %error, "rail cannot be used");
            }
        }
    }
    if rails.is_empty() {
        let line =
            format!("no device for fabric '{wanted}' (see 'convoy doctor'; CONVOY_FABRIC=tcp needs none)");
        return Err(Failure::new(CANNOT_START, line));
    }
    Ok(rails)
}

/// Whether a card carries the fabric, and not the kernel: Soft-RoCE and Soft-iWARP have devices of verbs with nothing
/// behind them.
fn is_card(provider: &str, device: &str) -> bool {
    match provider.split(';').next().unwrap_or_default() {
        "verbs" => {
            let known = Path::new("/sys/class/infiniband").join(device);
            // Soft-RoCE names the interface it stands on there.
            known.join("device").exists() && !known.join("parent").exists()
        }
        "tcp" | "net" | "udp" | "sockets" => false,
        _ => true,
    }
}

/// How many leading bits of each address of this host name its network.
fn prefixes() -> HashMap<IpAddr, u32> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let prefix = |address: &IfAddr| match address {
        IfAddr::V4(v4) => v4.netmask.to_bits().leading_ones(),
        IfAddr::V6(v6) => v6.netmask.to_bits().leading_ones(),
    };
    interfaces.iter().map(|interface| (interface.ip(), prefix(&interface.addr))).collect()
}

/// One descriptor for each bell of each program: as many as there may be.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Without them, programs whose bells cannot be taken look by the clock.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// How many descriptors this process may have.
pub(super) fn descriptor_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// What this host calls itself.
pub(super) fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// Metrics name programs and hosts: other hosts get them only if that is said.
fn check_metrics(options: &Options) -> Result<(), Failure> {
    match options.metrics {
        Some(address) if !address.ip().is_loopback() && !options.insecure => {
            Err(cannot(format!("--metrics {address} is open to other hosts: that needs --insecure")))
        }
        _ => Ok(()),
    }
}

/// The devices; waits a little for those of a network that is just coming up.
fn discover_patiently(wanted: &str) -> Vec<RailInfo> {
    let is_loopback = |rail: &RailInfo| rail.address.is_some_and(|address| address.is_loopback());
    let start = Instant::now();
    loop {
        let found = discover(wanted);
        let late = !has_networks() || start.elapsed() > NETWORK_PATIENCE;
        if late || found.is_empty() || found.iter().any(|rail| !is_loopback(rail)) {
            return found;
        }
        std::thread::sleep(NETWORK_PATIENCE / 20);
    }
}

/// Whether this host has interfaces beside loopback.
fn has_networks() -> bool {
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name() != "lo")
}

fn peers(options: &Options, waiter: &Waiter) -> Result<(Peers, Events, u128), Failure> {
    let hello = Hello::new(host_name(), PROTOCOL).map_err(cannot)?;
    let instance = hello.instance;
    let mut config = Config::new(hello);
    config.listen = SocketAddr::new(options.listen.unwrap_or(config.listen.ip()), options.port);
    config.insecure = options.insecure;
    config.key = options.key.as_deref().map(Key::read).transpose().map_err(cannot)?;
    config.peers = options.peers.iter().map(|peer: &IpAddr| SocketAddr::new(*peer, 0)).collect();
    config.wake = Some(waiter.make_wake().map_err(cannot)?);
    let (peers, events) = Peers::start(config).map_err(cannot)?;
    Ok((peers, events, instance))
}

/// The socket for programs: the machine's for root, otherwise the user's own.
fn server(settings: &Settings, network: u64) -> Result<(Server, PathBuf), Failure> {
    let user = rustix::process::geteuid().as_raw();
    let (owner, directory_mode, mode) =
        if user == 0 { (None, 0o755, 0o666) } else { (Some(user), 0o700, 0o600) };
    let path = server::socket_path(&settings.directory, owner, network).map_err(cannot)?;
    let shown = contact::path_of(&path);
    make_directory(shown, directory_mode, user)?;
    let server = Server::bind(&path, mode).map_err(|error| {
        let path = shown.display();
        match error.kind() {
            std::io::ErrorKind::AddrInUse => cannot(format!("another agent listens at {path}")),
            _ => cannot(format!("cannot listen at {path}: {error}")),
        }
    })?;
    Ok((server, shown.to_owned()))
}

/// The directory of the socket: made if it is not there, and refused if it is somebody else's.
fn make_directory(socket: &Path, mode: u32, user: u32) -> Result<(), Failure> {
    let Some(directory) = socket.parent() else { return Ok(()) };
    // It may be there already.
    let _ = fs::DirBuilder::new().mode(mode).create(directory);
    let about = fs::symlink_metadata(directory)
        .map_err(|error| cannot(format!("cannot use {}: {error}", directory.display())))?;
    if !about.is_dir() || about.uid() != user || about.mode() & 0o022 != 0 {
        let directory = directory.display();
        return Err(cannot(format!("{directory} is not a directory of this user that only it can write")));
    }
    Ok(())
}
