//! Which page a request by HTTP asks for. Pure; sending it is the parent's.

/// The longest request in bytes.
pub(super) const LONGEST: usize = 4 << 10;

/// A page that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Health,
    Metrics,
    Status,
}

/// What a request comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// It is not whole yet.
    More,
    Page(Page),
    /// The answer's status.
    Refused(&'static str),
}

/// What was asked, judging by what was read until now.
pub(super) fn asked(request: &[u8]) -> Asked {
    let end = |mark: &[u8]| request.windows(mark.len()).any(|window| window == mark);
    if !end(b"\r\n\r\n") && !end(b"\n\n") {
        return if request.len() > LONGEST { Asked::Refused("413 Content Too Large") } else { Asked::More };
    }
    let line = request.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    page(line).map_or_else(Asked::Refused, Asked::Page)
}

/// The page that a request's first line asks for.
fn page(line: &[u8]) -> Result<Page, &'static str> {
    const BAD: &str = "400 Bad Request";
    let line = std::str::from_utf8(line).map_err(|_| BAD)?;
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(BAD);
    };
    if !version.starts_with("HTTP/1.") {
        return Err(BAD);
    }
    if method != "GET" {
        return Err("405 Method Not Allowed");
    }
    match target.split('?').next() {
        Some("/health") => Ok(Page::Health),
        Some("/metrics") => Ok(Page::Metrics),
        Some("/status") => Ok(Page::Status),
        _ => Err("404 Not Found"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_there_is_answered() {
        assert_eq!(page(b"GET /health HTTP/1.1"), Ok(Page::Health));
        assert_eq!(page(b"GET /metrics?a=b HTTP/1.0"), Ok(Page::Metrics));
        for (line, status) in [
            (&b"GET / HTTP/1.1"[..], "404 Not Found"),
            (b"GET /../status HTTP/1.1", "404 Not Found"),
            (b"POST /status HTTP/1.1", "405 Method Not Allowed"),
            (b"GET /status", "400 Bad Request"),
            (b"GET /status HTTP/1.1 x", "400 Bad Request"),
            (b"\xff /status HTTP/1.1", "400 Bad Request"),
            (b"", "400 Bad Request"),
        ] {
            assert_eq!(page(line), Err(status));
        }
    }
}
