//! What is read, and what is refused.

use super::*;

fn read(text: &str) -> Result<Config, ConfigError> {
    Layers::default().file("test", text)?.config()
}

#[test]
fn the_example_is_the_default() {
    let (example, default) = (read(EXAMPLE).unwrap(), read("").unwrap());
    let shown = |config: &Config| {
        // The data folder depends on the user.
        let server = Server { data: PathBuf::new(), ..config.server.clone() };
        format!("{:#?}", Config { server, ..config.clone() })
    };
    assert_eq!(shown(&example), shown(&default));
    let table: toml::Table = toml::from_str(EXAMPLE).unwrap();
    for (section, values) in table.iter().filter(|(name, _)| *name != "model") {
        for name in values.as_table().unwrap().keys() {
            let path = format!("{section}.{name}");
            assert!(SETTINGS.iter().any(|setting| setting.path == path), "{path} is only in the example");
        }
    }
    for name in limit_names() {
        let path = format!("limits.{name}");
        assert!(SETTINGS.iter().any(|setting| setting.path == path), "{path} cannot be set");
    }
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    for Setting { path, .. } in SETTINGS {
        let name = path.rsplit('.').next().unwrap();
        let written = |line: &&str| line.trim_start_matches("# ").starts_with(&format!("{name} ="));
        assert!(lines.iter().any(written), "{path} is not in the example");
        let explained = |two: &[&str]| two[0].starts_with("# ") && written(&two[1]);
        assert!(!path.starts_with("limits.") || lines.windows(2).any(explained), "{path} is not explained");
    }
}

/// A file of the packages for those who run the service.
fn packaged(name: &str) -> String {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging");
    std::fs::read_to_string(folder.join(name)).unwrap()
}

#[test]
fn what_the_image_sets_are_settings_and_nobody_is_root_there() {
    let image = packaged("Dockerfile").replace("\\\n", " ");
    let set = image.lines().find_map(|line| line.strip_prefix("ENV ")).unwrap();
    let variables: Vec<(&str, &str)> =
        set.split_whitespace().map(|variable| variable.split_once('=').unwrap()).collect();
    let ours = variables.iter().filter(|(name, _)| name.starts_with("PELLUCID_")).count();
    assert!(ours >= 4, "{variables:?}");
    let config = Layers::default().environment(variables.iter().copied()).unwrap().config().unwrap();
    assert_eq!(
        (config.server.listen.port(), config.server.data.as_path()),
        (8460, "/var/lib/pellucid".as_ref())
    );
    let port = format!("127.0.0.1:{}/readyz", config.server.listen.port());
    let check = image.lines().find(|line| line.starts_with("HEALTHCHECK ")).unwrap();
    assert_eq!(check.matches(&port).count(), 2, "{check}");
    assert!(image.lines().any(|line| line.starts_with("USER 10001")));
    // `docker stop` kills after ten seconds.
    assert!(config.server.drain_seconds + 5.0 < 10.0);
}

#[test]
fn the_unit_gives_the_service_the_time_that_it_has_to_end() {
    let unit = packaged("pellucid.service");
    let value = |name: &str| {
        let of = |line: &str| {
            line.split_once('=').filter(|(own, _)| *own == name).map(|(_, value)| value.to_owned())
        };
        unit.lines().find_map(of).unwrap_or_else(|| panic!("{name} is not there"))
    };
    let drain = read("").unwrap().server.drain_seconds;
    assert!(value("TimeoutStopSec").parse::<f64>().unwrap() > drain + 5.0);
    assert_eq!((value("User").as_str(), value("Restart").as_str()), ("pellucid", "always"));
    assert_eq!(value("StartLimitIntervalSec"), "0", "it stays down after some deaths");
    let command = value("ExecStart");
    let arguments: Vec<&str> = command.split_whitespace().skip(1).collect();
    assert_eq!(
        arguments,
        ["serve", "--config", "/etc/pellucid/pellucid.toml", "--data", "/var/lib/pellucid"]
    );
}

#[test]
fn what_is_shown_can_be_read_and_is_the_same() {
    let limits = "[limits]\nrequests_per_minute = 'none'\nmodels = ['a/b']\ngeneration = false";
    let models = "[[model]]\nid = 'a/b'\ndtype = 'bf16'\npinned = true\n[[model]]\nid = 'c'\nsource = 'x'";
    let all = format!("[store]\ndurability = 'power'\n[trace]\nendpoint = 'http://h:1'\n{limits}\n{models}");
    for text in ["", EXAMPLE, &all] {
        let config = read(text).unwrap();
        let shown = config.to_toml().unwrap();
        assert_eq!(format!("{:#?}", read(&shown).unwrap()), format!("{config:#?}"), "{shown}");
    }
}

#[test]
fn flags_go_before_the_environment_and_that_before_the_file() {
    let layers = Layers::default()
        .file("test", "[server]\nlisten = '127.0.0.1:1'\ndrain_seconds = 1\nconnections = 1")
        .unwrap()
        .environment([
            ("PELLUCID_SERVER_LISTEN", "127.0.0.1:2"),
            ("PELLUCID_SERVER_DRAIN_SECONDS", "2"),
            ("HOME", "x"),
        ])
        .unwrap();
    let config = layers.set("server.listen", "127.0.0.1:3").unwrap().config().unwrap();
    assert_eq!(config.server.listen.port(), 3);
    assert_eq!(config.server.drain_seconds, 2.0);
    assert_eq!(config.server.connections, 1);
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let message = |text: &str| read(text).unwrap_err().to_string();
    assert!(message("[server]\nlissten = 'x'").contains("lissten"));
    assert!(message("[server]\nopen = true\nlisten = '0.0.0.0:1'").contains("loopback"));
    assert!(message("[server]\ncertificate = 'x'").contains("private_key"));
    let two = "[[model]]\nid = 'a'\n[[model]]\nid = 'a'";
    assert!(message(two).contains("`a`"));
    assert!(message("[[model]]\nid = '../a'").contains("letters"));
    assert!(message("[limits]\nrequest_per_minute = 1").contains("requests_per_minute"));
    assert!(message("[engine]\ndelay_ms = 0").contains("engine.delay_ms"));
    assert!(message("[server]\nconnections = 9223372036854775807").contains("server.connections is at most"));
    assert!(message("[engine]\nheavy_threads = 100000").contains("engine.heavy_threads is at most"));
    for wrong in ["http://", "https://", "http://:4318", "collector:4318", "ftp://x", "http://a b"] {
        assert!(message(&format!("[trace]\nendpoint = '{wrong}'")).contains("trace.endpoint"), "{wrong}");
    }
    assert!(read("[trace]\nendpoint = 'https://collector.example/otlp'").is_ok());
    let wrong = Layers::default().environment([("PELLUCID_SERVER_OPEN", "maybe")]);
    assert!(wrong.unwrap_err().to_string().contains("PELLUCID_SERVER_OPEN"));
    let unknown = Layers::default().environment([("PELLUCID_SERVER_LISTN", "x")]);
    assert!(unknown.unwrap_err().to_string().contains("PELLUCID_SERVER_LISTEN"));
    let unlike = Layers::default().set("zebra.stripes", "1").unwrap_err().to_string();
    assert!(unlike.contains("config example"), "{unlike}");
}

#[test]
fn limits_that_are_not_named_are_as_they_are_by_default() {
    let default = AccountLimits::default().0;
    let limits = |text: &str| read(text).unwrap().limits.0;
    let given = limits("[limits]\nrequests_per_minute = 5");
    assert_eq!(given, Limits { requests_per_minute: Some(5), ..default.clone() });
    let none = limits("[limits]\nrequests_per_minute = 'none'\nmodels = 'none'\ngeneration = false");
    assert_eq!(none, Limits { requests_per_minute: None, generation: false, ..default.clone() });
    let environment = [
        ("PELLUCID_LIMITS_REQUESTS_PER_MINUTE", "5"),
        ("PELLUCID_LIMITS_MILLISECONDS_PER_DAY", "none"),
        ("PELLUCID_LIMITS_MODELS", "bundled"),
    ];
    let layers = Layers::default().environment(environment).unwrap();
    let config = layers.set("limits.training", "false").unwrap().config().unwrap();
    let expected = Limits {
        requests_per_minute: Some(5),
        milliseconds_per_day: None,
        training: false,
        models: Some(vec!["bundled".into()]),
        ..default
    };
    assert_eq!(config.limits.0, expected);
    let unknown = Layers::default().environment([("PELLUCID_LIMITS_REQUEST_PER_MINUTE", "5")]);
    assert!(unknown.unwrap_err().to_string().contains("PELLUCID_LIMITS_REQUESTS_PER_MINUTE"));
}

#[test]
fn what_cannot_be_a_limit_is_refused() {
    let message = |text: &str| read(text).unwrap_err().to_string();
    for (text, told) in [
        ("milliseconds_per_minute = nan", "limits.milliseconds_per_minute"),
        ("milliseconds_per_day = -5.0", "limits.milliseconds_per_day"),
        ("job_milliseconds = inf", "limits.job_milliseconds"),
        ("concurrent_jobs = 0", "limits.concurrent_jobs"),
        ("models = ['bundled', 'nope']", "`nope`"),
        ("queued_jobs = -1", "limits"),
        ("queued_jobs = 'many'", "limits"),
        ("generation = 'none'", "`generation`"),
    ] {
        let found = message(&format!("[limits]\n{text}"));
        assert!(found.contains(told), "{text}: {found}");
    }
    for (path, text) in [("limits.milliseconds_per_minute", "nan"), ("limits.concurrent_jobs", "0")] {
        assert!(Layers::default().set(path, text).and_then(Layers::config).is_err(), "{path}={text}");
    }
}

#[test]
fn what_is_wrong_is_blamed_on_where_it_came_from() {
    let file = || Layers::default().file("the file", "[store]\ndurability = 'power'").unwrap();
    let error = file().set("store.durability", "yes").unwrap_err().to_string();
    assert!(error.starts_with("store.durability:") && !error.contains("the file"), "{error}");
    let error = file().environment([("PELLUCID_LOG_FORMAT", "xml")]).unwrap_err().to_string();
    assert!(error.starts_with("PELLUCID_LOG_FORMAT:"), "{error}");
}

#[test]
fn what_it_names_is_opened() {
    let faults = |text: &str| read(text).unwrap().unusable();
    let folder = tempfile::tempdir().unwrap();
    let data = format!("[server]\ndata = '{}'\n", folder.path().join("a/b").display());
    assert_eq!(faults(&data), [""; 0]);
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    for (text, told) in [
        (format!("{data}certificate = '/nowhere/c.pem'\nprivate_key = '/nowhere/k.pem'"), "/nowhere/c.pem"),
        (format!("[server]\ndata = '{}'", file.join("x").display()), "server.data"),
        (format!("{data}[[model]]\nid = 'a'\nsource = '/nowhere/model'"), "model `a`"),
        (format!("{data}[engine]\nweight_bytes = 1000"), "engine.weight_bytes"),
        (format!("{data}[[model]]\nid = 'a'\nsource = 'bundled'\ndtype = 'quantised'"), "choose `f32`"),
    ] {
        let found = faults(&text);
        assert!(found.len() == 1 && found[0].contains(told), "{text}: {found:?}");
    }
    let two = format!(
        "{data}[engine]\nweight_bytes = 10000000\n[[model]]\nid = 'a'\nsource = 'bundled'\npinned = true\n[[model]]\nid = 'b'\nsource = 'bundled'\npinned = true"
    );
    let bytes = bytes(&two);
    let two = two.replace("10000000", &(bytes + bytes / 2).to_string());
    assert!(faults(&two)[0].contains("together"), "{:?}", faults(&two));
}

#[test]
fn what_stays_quantised_is_expected_to_take_what_its_blocks_take() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/gguf/quantised-k.gguf");
    let of = |dtype: &str| bytes(&format!("[[model]]\nid = 'a'\nsource = '{file}'\ndtype = '{dtype}'"));
    assert_eq!(of("f32"), 2 * of("bf16"));
    assert!(of("quantised") * 2 < of("bf16") * 3 / 2, "{} of {}", of("quantised"), of("f32"));
}

fn bytes(text: &str) -> u64 {
    let model = &read(text).unwrap().models[0];
    let source = crate::models::source_of(model).unwrap();
    let outline = pellucid_models::Model::outline(&source, &crate::models::model_options(model)).unwrap();
    outline.expected_weight_bytes()
}

#[test]
fn numbers_that_no_clock_knows_are_refused() {
    let message = |text: &str| read(text).unwrap_err().to_string();
    for (text, told) in [
        ("[retention]\nresult_hours = 1e300", "retention.result_hours"),
        ("[retention]\njob_days = inf", "retention.job_days"),
        ("[server]\nheader_seconds = 1e300", "server.header_seconds"),
        ("[server]\ndrain_seconds = 1e300", "server.drain_seconds"),
        ("[engine]\ndelay_ms = 1e300", "engine.delay_ms"),
        ("[server]\ndata = ''", "server.data"),
    ] {
        let found = message(text);
        assert!(found.contains(told), "{text}: {found}");
    }
}

#[test]
fn without_models_there_is_the_bundled_one() {
    let config = read("").unwrap();
    assert_eq!(config.models.len(), 1);
    assert!(config.models[0].default && config.models[0].pinned);
    let config = read("[[model]]\nid = 'a/b'\n[[model]]\nid = 'c'\ndefault = true").unwrap();
    assert_eq!(config.models[0].source(), "a/b");
    assert!(config.models[1].default && !config.models[0].default);
}
