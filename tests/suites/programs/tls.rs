//! nginx with TLS: as a server, with and without sendfile and kernel TLS, and as a proxy with TLS on both sides.

use std::process::Command;

use convoy_tests::Arena;
use convoy_tests::arena::{both, find, free_port};

use crate::{nginx, web};

/// A key and its certificate, made for this run.
fn certificate(arena: &Arena) {
    let arguments = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=IP:127.0.0.1,DNS:localhost",
        "-keyout",
        "key.pem",
        "-out",
        "cert.pem",
    ];
    let mut command: Command = arena.command(find("openssl", "openssl"), &arguments);
    command.env_remove("LD_PRELOAD");
    arena.run(command);
}

fn exercise(arena: &Arena, versions: &str, options: &str) -> String {
    certificate(arena);
    let www = web::files(arena).display().to_string();
    let [server, proxy] = [(); 2].map(|()| free_port());
    let base = arena.path("").display().to_string();
    let keys = format!(
        "ssl_certificate {base}/cert.pem; ssl_certificate_key {base}/key.pem; ssl_protocols {versions}; {options}"
    );
    let nginx = nginx::start(
        arena,
        &format!(
            "upstream back {{ server 127.0.0.1:{server}; keepalive 16; }}
             server {{
               listen 127.0.0.1:{server} ssl; {keys} root {www};
               location /copied/ {{ sendfile off; alias {www}/; }}
               location /up/ {{ dav_methods PUT; create_full_put_path on; }}
             }}
             server {{
               listen 127.0.0.1:{proxy} ssl http2; {keys}
               proxy_ssl_trusted_certificate {base}/cert.pem; proxy_ssl_verify on; proxy_ssl_name localhost;
               proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_ssl_protocols {versions};
               location / {{ proxy_pass https://back/; }}
               location /flowing/ {{ proxy_buffering off; proxy_request_buffering off; proxy_pass https://back/; }}
             }}"
        ),
    );
    arena.listening(proxy);
    let trust = ["--cacert", "cert.pem"];
    let mut said = Vec::new();
    for (port, way) in [(server, ""), (server, "copied/"), (proxy, ""), (proxy, "flowing/")] {
        let address = format!("https://127.0.0.1:{port}/{way}");
        said.push(web::bodies(arena, &address, &trust));
        said.push(web::bodies_in_a_row(arena, &address, &trust));
        said.push(web::bodies_in_a_row(arena, &address, &[&trust[..], &["--http1.1"]].concat()));
        web::load(arena, &format!("{address}small"));
    }
    said.push(nginx.end(libc::SIGQUIT).to_string());
    said.join("\n")
}

#[test]
fn tls_1_3() {
    both(true, |arena| exercise(arena, "TLSv1.3", ""));
}

#[test]
fn tls_1_2() {
    both(true, |arena| exercise(arena, "TLSv1.2", ""));
}

/// Where the kernel has TLS, the streams go back to it; elsewhere nginx is told that it has not.
#[test]
fn tls_in_the_kernel() {
    both(true, |arena| exercise(arena, "TLSv1.2 TLSv1.3", "ssl_conf_command Options KTLS;"));
}
