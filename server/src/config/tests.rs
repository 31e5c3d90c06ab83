use std::path::Path;

use super::*;

fn parse(text: &str) -> Result<Layer, ConfigError> {
    Layer::parse(Path::new("/etc/specter/server.toml"), text)
}

fn flags() -> Layer {
    Layer {
        apex: Some(vec![Stated::flag("--apex", "example.com")]),
        data_dir: Some(Stated::flag("--data-dir", "data")),
        cert_dir: Some(Stated::flag("--cert-dir", "cert")),
        ..Layer::default()
    }
}

fn sentence<T: fmt::Debug>(result: Result<T, ConfigError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn three_values_are_enough_and_the_rest_has_defaults() {
    let config = Config::check(flags()).unwrap();
    assert_eq!(config.advertise.to_string(), "example.com:443");
    assert_eq!(config.listen_tcp, config.listen_udp);
    assert_eq!(config.sync, SyncPolicy::Always);
    assert_eq!(config.listen_http, ["0.0.0.0:80".parse().unwrap()]);
    assert_eq!((config.work_bits, config.workers, config.log.as_str(), config.log_json), (18, 0, "info", false));
}

#[test]
fn a_file_sets_everything_and_its_paths_are_relative_to_it() {
    let text = r#"
        advertise = "[2001:db8::1]:8443"
        listen = ["0.0.0.0:8443", "[::]:8443"]
        listen_udp = ["0.0.0.0:9443"]
        listen_http = []
        data_dir = "data"
        sync = "everysec"
        cert_dir = "/cert"
        apex = ["Example.COM.", "example.net"]
        log = "specter_server=debug,warn"
        log_json = true
        work_bits = 20
        workers = 4
        [[certificate]]
        cert = "a.crt"
        key = "a.key"
    "#;
    let config = Config::check(parse(text).unwrap()).unwrap();
    assert_eq!(config.advertise, Advertise { host: "2001:db8::1".to_owned(), port: 8443 });
    assert_eq!(config.advertise.to_string(), "[2001:db8::1]:8443");
    assert_eq!(config.listen_tcp.len(), 2);
    assert_eq!(config.listen_udp, ["0.0.0.0:9443".parse().unwrap()]);
    assert!(config.listen_http.is_empty());
    assert_eq!(config.data_dir, Path::new("/etc/specter/data"));
    assert_eq!(config.sync, SyncPolicy::EverySecond);
    assert_eq!(config.credentials, CredentialsSource::Directory("/cert".into()));
    assert_eq!(config.apexes[0].as_str(), "example.com");
    assert_eq!(config.certificates[0].key, Path::new("/etc/specter/a.key"));
    assert_eq!((config.work_bits, config.workers, config.log_json), (20, 4, true));
}

#[test]
fn a_flag_beats_a_variable_and_a_variable_beats_the_file() {
    let file = parse("work_bits = 1\nlog = \"error\"\nadvertise = \"file:1\"\nlisten_tcp = [\"127.0.0.1:1\"]").unwrap();
    let environment = Layer {
        log: Some(Stated::variable("SPECTER_LOG", "warn")),
        advertise: Some(Stated::variable("SPECTER_ADVERTISE", "variable:2")),
        listen: Some(vec![Stated::variable("SPECTER_LISTEN", "127.0.0.1:2")]),
        ..Layer::default()
    };
    let flags = Layer { advertise: Some(Stated::flag("--advertise", "flag:3")), ..flags() };
    let config = Config::check(flags.or(environment).or(file)).unwrap();
    assert_eq!((config.work_bits, config.log.as_str()), (1, "warn"));
    assert_eq!(config.advertise.to_string(), "flag:3");
    assert_eq!(config.listen_tcp, ["127.0.0.1:2".parse().unwrap()], "a listener of the file does not shine through");
}

#[test]
fn an_unknown_key_is_told_with_its_line() {
    let error = sentence(parse("apex = [\"example.com\"]\n\nlisen = [\"0.0.0.0:443\"]\n"));
    assert!(error.starts_with("/etc/specter/server.toml line 3, `lisen = "), "{error}");
    assert!(error.contains("unknown field `lisen`"), "{error}");
}

#[test]
fn a_value_of_the_wrong_type_is_told_with_its_line() {
    let error = sentence(parse("apex = [\"example.com\"]\nwork_bits = \"many\"\n"));
    assert!(error.starts_with("/etc/specter/server.toml line 2, `work_bits = \"many\"`"), "{error}");
}

#[test]
fn a_value_that_is_not_understood_names_its_place_and_the_way_out() {
    for (text, place) in [
        (
            "\nlisten = [\n \"0.0.0.0:443\",\n \"localhost:443\",\n]",
            "/etc/specter/server.toml line 4, listen: `localhost:443`",
        ),
        ("advertise = \"example.com\"", "/etc/specter/server.toml line 1, advertise: `example.com` is not HOST:PORT"),
        ("advertise = \"[example.com]:1\"", "/etc/specter/server.toml line 1, advertise"),
        ("advertise = \"a_b:1\"", "/etc/specter/server.toml line 1, advertise"),
        ("log = \"inof\"", "/etc/specter/server.toml line 1, log: `inof` is no log filter"),
        ("sync = \"no\"", "/etc/specter/server.toml line 1, sync: `no` is neither always nor everysec"),
        ("work_bits = 25", "/etc/specter/server.toml line 1, work_bits: `25`"),
        ("workers = -1", "/etc/specter/server.toml line 1, workers: `-1`"),
    ] {
        let error = sentence(Config::check(flags().or(parse(text).unwrap())));
        assert!(error.starts_with(place), "{error}");
    }
    let apex = Layer { apex: Some(vec![Stated::variable("SPECTER_APEX", "127.0.0.1")]), ..Layer::default() };
    let error = sentence(Config::check(apex.or(flags())));
    assert!(error.starts_with("SPECTER_APEX: `127.0.0.1` is no domain"), "{error}");
}

#[test]
fn what_is_missing_is_told_with_a_flag_that_gives_it() {
    for (layer, flag) in [
        (Layer { apex: None, ..flags() }, "--apex example.com"),
        (Layer { data_dir: None, ..flags() }, "--data-dir"),
        (Layer { cert_dir: None, ..flags() }, "--cert-dir"),
    ] {
        let error = sentence(Config::check(layer));
        assert!(error.contains(flag), "{error}");
    }
}

#[test]
fn two_sources_of_credentials_in_one_place_are_refused() {
    let environment = Stated::flag("--cert-env", "true");
    let both = Layer { cert_env: Some(environment.clone()), ..flags() };
    assert!(sentence(Config::check(both)).starts_with("--cert-dir and --cert-env are both given"));
    let file = Layer { cert_dir: Some(Stated::flag("file", "cert")), ..Layer::default() };
    let flag = Layer { cert_env: Some(environment), cert_dir: None, ..flags() };
    assert_eq!(Config::check(flag.or(file)).unwrap().credentials, CredentialsSource::Environment);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    assert!(sentence(Layer::read(Path::new("/nonexistent/server.toml"))).contains("/nonexistent/server.toml"));
}
