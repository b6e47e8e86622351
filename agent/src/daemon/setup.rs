//! What the agent is started with: from the command line to a running engine. A wrong setting is one line.

use super::background;
use super::engine::{Engine, Rail};
use super::hand_over::Succession;
use super::notify;
use super::sandbox::{self, Rights};
use super::serve::{self, Served};
use super::signals::Signals;
use super::sockets::{Places, Sockets};
use super::status::Board;
use super::take_over;
use super::wait::{Token, Waiter};
use super::wire::Wire;
use crate::cli::Agent as Options;
use crate::{Failure, Outcome};
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
    pub(super) served: Served,
    pub(super) succession: Succession,
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
    if options.take_over {
        // A running agent that starts this one may have descriptors of libraries that nobody else should keep open.
        background::close_inherited();
    }
    let mut engine = Engine::new(Setup::new(options, &settings)?);
    notify::ready();
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
    fn new(options: &Options, settings: &Settings) -> Result<Self, Failure> {
        check_metrics(options)?;
        let rights = (!options.no_sandbox).then(|| sandbox::drop_rights(Rights::needed(options.port)));
        raise_descriptor_limit();
        let network = server::network_of(None).map_err(|error| {
            cannot(format!("this kernel does not tell network namespaces apart (Linux 5.14 does): {error}"))
        })?;
        let places = Places::new(options, settings, network).map_err(cannot)?;
        let taken =
            options.take_over.then(|| take_over::ask(&places.programs)).transpose().map_err(cannot)?;
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
        let mut config = control(options, places.agents, &waiter)?;
        let instance = config.hello.instance;
        config.check().map_err(cannot)?;
        // Last, because the agent that hands them over ends.
        let Sockets { programs: server, agents, questions, hosts } = match taken {
            Some(taken) => places.adopt(taken).map_err(cannot)?,
            None => places.bind().map_err(cannot)?,
        };
        config.listener = Some(agents.try_clone().map_err(cannot)?);
        let (peers, from_peers) = Peers::start(config).map_err(cannot)?;
        for host in hosts {
            // What comes of it is an event.
            let _ = peers.probe(host);
        }
        let board = Arc::new(Board::new());
        let served = serve::start(&places.status(), questions, Arc::clone(&board)).map_err(cannot)?;
        if let Some(address) = served.metrics {
            tracing::info!(%address, "metrics");
        }
        let succession = Succession::new(agents, options.metrics);
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
            served,
            succession,
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
        Ok(setup)
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

/// What the control connections are started with.
fn control(options: &Options, listen: SocketAddr, waiter: &Waiter) -> Result<Config, Failure> {
    let mut config = Config::new(Hello::new(host_name(), PROTOCOL).map_err(cannot)?);
    config.listen = listen;
    config.insecure = options.insecure;
    config.key = options.key.as_deref().map(Key::read).transpose().map_err(cannot)?;
    config.peers = options.peers.iter().map(|peer: &IpAddr| SocketAddr::new(*peer, 0)).collect();
    config.wake = Some(waiter.make_wake().map_err(cannot)?);
    Ok(config)
}
