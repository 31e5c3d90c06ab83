use super::*;

#[test]
fn targets_parse_into_what_they_lead_to() {
    for (text, header, carries, scheme) in [
        ("tcp://127.0.0.1:22", "127.0.0.1:22", Carries::Raw, "tcp"),
        ("tcp://[::1]:22", "[::1]:22", Carries::Raw, "tcp"),
        ("http://localhost", "localhost", Carries::Http, "https"),
        ("http://127.0.0.1:5173/", "127.0.0.1:5173", Carries::Http, "https"),
        ("https://my_box.lan:8443", "my_box.lan:8443", Carries::Http, "https"),
        ("https://h:80", "h:80", Carries::Http, "https"),
        ("unix:///run/x.sock", "localhost", Carries::Either, "https"),
    ] {
        let target = Target::parse(text).expect(text);
        assert_eq!(target.host_header(), header);
        assert_eq!(target.carries(), carries);
        assert_eq!(target.visitor_scheme(), scheme);
        assert_eq!(target.to_string(), text);
        assert!(specter_wire::name::is_authority(&target.host_header()));
    }
}

#[test]
fn what_is_no_target_is_refused_by_its_part() {
    for (text, error) in [
        ("127.0.0.1:22", TargetError::Scheme),
        ("ssh://h:22", TargetError::Scheme),
        ("", TargetError::Scheme),
        ("tcp://h", TargetError::Port),
        ("tcp://h:0", TargetError::Port),
        ("tcp://h:x", TargetError::Port),
        ("tcp://h:65536", TargetError::Port),
        ("tcp://:22", TargetError::Host),
        ("tcp://user@h:22", TargetError::Host),
        ("tcp://::1:22", TargetError::Host),
        ("tcp://[::1:22", TargetError::Host),
        ("tcp://[::1]22", TargetError::Host),
        ("http://h/path", TargetError::Path),
        ("http://h?x", TargetError::Path),
        ("unix://relative.sock", TargetError::Relative),
        (r"\\.\pipe\x", TargetError::Platform),
    ] {
        assert_eq!(Target::parse(text), Err(error), "{text:?}");
    }
}

#[test]
fn only_https_can_go_without_verification() {
    assert!(Target::parse("https://h").and_then(Target::without_verification).is_ok());
    for text in ["http://h", "tcp://h:1", "unix:///x"] {
        let target = Target::parse(text).expect(text);
        assert_eq!(target.without_verification(), Err(TargetError::Insecure));
    }
}

#[test]
fn failures_of_a_dial_become_codes() {
    for (kind, code) in [
        (io::ErrorKind::ConnectionRefused, ErrorCode::TargetRefused),
        (io::ErrorKind::NotFound, ErrorCode::TargetRefused),
        (io::ErrorKind::TimedOut, ErrorCode::TargetTimeout),
        (io::ErrorKind::NetworkUnreachable, ErrorCode::TargetUnreachable),
        (io::ErrorKind::Other, ErrorCode::TargetUnreachable),
    ] {
        assert_eq!(DialError::from(io::Error::from(kind)).code, code);
    }
}
