//! haproxy between curl or wrk and nginx, as a relay of bytes and as one of requests, also with splicing and reloads.

use std::path::PathBuf;

use convoy_tests::arena::{both, find, free_port};
use convoy_tests::{Arena, Service};

use crate::{nginx, web};

/// Two proxies in front of an nginx that takes uploads too.
struct Chain<'a> {
    arena: &'a Arena,
    config: PathBuf,
    back: Service<'a>,
    bytes: u16,
    requests: u16,
}

impl<'a> Chain<'a> {
    fn start(arena: &'a Arena, options: &str) -> Self {
        let [back, bytes, requests] = [(); 3].map(|()| free_port());
        let www = web::files(arena).display().to_string();
        let server = nginx::start(
            arena,
            &format!(
                "server {{
                   listen 127.0.0.1:{back}; root {www};
                   location /up/ {{ dav_methods PUT; create_full_put_path on; }}
                 }}"
            ),
        );
        arena.listening(back);
        let config = format!(
            "global\n  nbthread 2\n  maxconn 1000\n
             defaults\n  timeout connect 20s\n  timeout client 60s\n  timeout server 60s\n{options}
             listen bytes\n  mode tcp\n  bind 127.0.0.1:{bytes}\n  server nginx 127.0.0.1:{back}
             listen requests\n  mode http\n  bind 127.0.0.1:{requests}\n  server nginx 127.0.0.1:{back}\n"
        );
        Self { arena, config: arena.file("haproxy.cfg", config), back: server, bytes, requests }
    }

    /// Starts a haproxy; one that is given takes its leave when its connections have ended.
    fn proxy(&self, before: Option<&Service<'_>>) -> Service<'a> {
        let mut arguments = vec!["-db".to_owned(), "-f".into(), self.config.display().to_string()];
        if let Some(before) = before {
            arguments.extend(["-sf".into(), before.pid().to_string()]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let command = self.arena.command(find("haproxy", "haproxy"), &arguments);
        let proxy = self.arena.start("haproxy", command);
        self.arena.listening(self.bytes);
        self.arena.listening(self.requests);
        proxy
    }

    fn addresses(&self) -> [String; 2] {
        [self.bytes, self.requests].map(|port| format!("http://127.0.0.1:{port}/"))
    }

    /// Fetches and uploads by both ways.
    fn bodies(&self) -> String {
        let mut said = Vec::new();
        for address in self.addresses() {
            said.push(web::bodies(self.arena, &address, &[]));
            said.push(web::bodies_in_a_row(self.arena, &address, &[]));
            said.push(web::uploads(self.arena, &address));
        }
        said.join("\n")
    }
}

fn exercise(arena: &Arena, options: &str) -> String {
    let chain = Chain::start(arena, options);
    let proxy = chain.proxy(None);
    let mut said = vec![chain.bodies()];
    for address in chain.addresses() {
        web::load(arena, &format!("{address}small"));
        web::load(arena, &format!("{address}middle"));
    }
    said.push(chain.bodies());
    said.push(proxy.end(libc::SIGUSR1).to_string());
    said.push(chain.back.end(libc::SIGQUIT).to_string());
    said.join("\n")
}

/// A new process takes the ports over in the middle of the load; no request may fail for it.
fn reload(arena: &Arena) -> String {
    let chain = Chain::start(arena, "  option splice-auto\n");
    let mut proxies = vec![chain.proxy(None)];
    let [address, _] = chain.addresses();
    let load = arena.start("wrk", web::wrk(arena, &format!("{address}small"), "3"));
    for _ in 0..3 {
        proxies.push(chain.proxy(proxies.last()));
        web::bodies_in_a_row(arena, &address, &[]);
    }
    load.ended();
    let said = chain.bodies();
    proxies.pop().unwrap().end(libc::SIGUSR1);
    // They have been told to go when the last of their connections has ended.
    for proxy in proxies {
        proxy.ended();
    }
    chain.back.end(libc::SIGQUIT);
    said
}

#[test]
fn haproxy_copying() {
    both(true, |arena| exercise(arena, ""));
}

#[test]
fn haproxy_splicing() {
    both(true, |arena| exercise(arena, "  option splice-auto\n"));
}

#[test]
fn haproxy_reload_under_load() {
    both(true, reload);
}
