use proptest::prelude::*;

use super::*;

fn parse(url: Option<&str>, variables: &[(&str, &str)]) -> Result<Parameters, ParameterError> {
    Parameters::parse(url, |name| {
        let found = variables.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

fn parsed(url: &str) -> Parameters {
    parse(Some(url), &[]).unwrap_or_else(|error| panic!("{url}: {error}"))
}

fn of_variables(variables: &[(&str, &str)]) -> Parameters {
    parse(None, variables).expect("parameters")
}

fn refused(url: &str) -> String {
    parse(Some(url), &[]).err().expect(url).to_string()
}

fn address(parameters: &Parameters) -> String {
    let hosts: Vec<String> = parameters.hosts.iter().map(ToString::to_string).collect();
    hosts.join(",")
}

/// A parameter that sqlx gets.
fn text<'p>(parameters: &'p Parameters, name: &str) -> Option<&'p str> {
    parameters.for_sqlx.get(name).map(String::as_str)
}

#[test]
fn a_url_names_servers_as_libpq_reads_it() {
    for (url, expected) in [
        ("postgres://h/db", "h:5432"),
        ("postgresql://u:p@h:6000/db?sslmode=disable", "h:6000"),
        ("postgres://u:p@h1:1,h2:2,h3/db", "h1:1,h2:2,h3:5432"),
        (
            "postgres://[::1]:6000,[fe80::1%25eth0]/db",
            "[::1]:6000,[fe80::1%eth0]:5432",
        ),
        ("postgres://%2Frun%2Fpg:6000/db", "/run/pg:6000"),
        ("postgres:///db?host=h1,h2&port=6000", "h1:6000,h2:6000"),
        ("postgres:///db?host=h1,h2&port=1,2", "h1:1,h2:2"),
        ("postgres://ignored:9/db?host=h&port=", "h:5432"),
        ("postgres://h1,h2:6000/db", "h1:5432,h2:6000"),
    ] {
        assert_eq!(address(&parsed(url)), expected, "{url}");
    }
    let many = vec!["h"; 17].join(",");
    for (url, mistake) in [
        (
            "postgres:///db?host=h1,h2&port=1,2,3",
            "one port for all hosts, or one for each",
        ),
        ("postgres://h:0/db", "numbers from 1 to 65535"),
        ("postgres://h:65536/db", "numbers from 1 to 65535"),
        ("postgres://a b/db", "names, addresses"),
        (&format!("postgres://{many}/db"), "up to 16 names"),
    ] {
        assert!(refused(url).contains(mistake), "{url}: {}", refused(url));
    }
}

#[test]
fn a_url_is_split_where_libpq_splits_it() {
    let all = parsed("postgres://us%40er:p%2Fa+s@h/d%20b?application_name=mine&connect_timeout=7");
    for (name, expected) in [
        ("user", "us@er"),
        ("password", "p/a+s"),
        ("dbname", "d b"),
        ("application_name", "mine"),
    ] {
        assert_eq!(text(&all, name), Some(expected), "{name}");
    }
    assert_eq!(all.connect_timeout, Duration::from_secs(7));
    let by_query = parsed("postgres:///?user=u&password=p&dbname=d");
    for (name, expected) in [("user", "u"), ("password", "p"), ("dbname", "d")] {
        assert_eq!(text(&by_query, name), Some(expected), "{name}");
    }
    assert_eq!(text(&parsed("postgres://u@h"), "dbname"), Some("u"));
    let own = std::process::Command::new("id").arg("-un").output();
    let own = String::from_utf8(own.expect("a user").stdout).expect("a name");
    for name in ["user", "dbname"] {
        assert_eq!(text(&parsed("postgres://h"), name), Some(own.trim()));
    }
    for url in [
        "mysql://h/db",
        "host=h dbname=db",
        "postgres://user:a/b@h/db",
        "postgres://user:a#b@h/db",
        "postgres://a:b:c/db",
        "postgres://[::1/db",
        "postgres://h/%ff",
    ] {
        assert!(refused(url).contains("not a Postgres URL"), "{url}");
    }
}

#[test]
fn variables_give_the_parameters_that_the_url_leaves_out() {
    let variables = [
        ("PGHOST", "v1,v2"),
        ("PGPORT", "7000,7001"),
        ("PGUSER", "vu"),
        ("PGPASSWORD", "vp"),
        ("PGDATABASE", "vd"),
        ("PGSSLMODE", "verify-ca"),
        ("PGSSLROOTCERT", "/ca.pem"),
        ("PGSSLCERT", "/client.pem"),
        ("PGSSLKEY", "/client.key"),
        ("PGCONNECT_TIMEOUT", "9"),
        ("PGAPPNAME", "va"),
    ];
    let alone = of_variables(&variables);
    assert_eq!(address(&alone), "v1:7000,v2:7001");
    for (name, expected) in [
        ("user", "vu"),
        ("password", "vp"),
        ("dbname", "vd"),
        ("sslrootcert", "/ca.pem"),
        ("sslcert", "/client.pem"),
        ("sslkey", "/client.key"),
        ("application_name", "va"),
    ] {
        assert_eq!(text(&alone, name), Some(expected), "{name}");
    }
    assert!(matches!(alone.ssl_mode, PgSslMode::VerifyCa));
    assert_eq!(alone.connect_timeout, Duration::from_secs(9));

    let url = "postgres://u@h1:1,h2:2/d?sslmode=disable";
    let both = parse(Some(url), &variables).expect("parameters");
    assert_eq!(address(&both), "h1:1,h2:2");
    for (name, expected) in [("user", "u"), ("password", "vp"), ("dbname", "d")] {
        assert_eq!(text(&both, name), Some(expected), "{name}");
    }
    let empty = of_variables(&[
        ("PGHOST", "h"),
        ("PGPORT", ""),
        ("PGSERVICE", ""),
        ("PGSSLMODE", ""),
    ]);
    assert_eq!(address(&empty), "h:5432");
}

#[test]
fn an_unsupported_parameter_is_refused_by_name_and_never_with_its_value() {
    for (query, setting) in [
        (
            "service=hush",
            "service (PGSERVICE) is not supported: write",
        ),
        ("channel_binding=require", "channel_binding"),
        ("require_auth=hush", "require_auth"),
        ("requirepeer=hush", "requirepeer"),
        // Each is harmless for another parameter.
        ("requirepeer=postgres", "requirepeer"),
        ("service=prefer", "service"),
        ("sslcertmode=disable", "sslcertmode"),
        ("ssl_max_protocol_version=TLSv1.2", "TLS 1.2 or 1.3"),
        ("target_session_attrs=standby", "one that takes writes"),
        ("gssencmode=require", "gssencmode"),
        ("hostaddr=hush", "hostaddr"),
        ("passfile=hush", "set PGPASSFILE"),
        ("sslcrl=hush", "sslcrl"),
        ("sslnegotiation=direct", "sslnegotiation"),
        (
            "ssl_min_protocol_version=TLSv1.3",
            "ssl_min_protocol_version",
        ),
        ("sslpassword=hush", "begins with ssl"),
        ("ssl-mode=verify-full", "begins with ssl"),
        ("ssl=true", "begins with ssl"),
        ("sslmode=hush", "sslmode (PGSSLMODE) is not valid: write"),
        ("connect_timeout=0", "is not valid: write 1 to 60"),
        ("connect_timeout=hush", "connect_timeout"),
        ("port=hush", "port (PGPORT) is not valid"),
    ] {
        let error = refused(&format!("postgres://h/db?{query}"));
        assert!(
            error.contains(setting) && !error.contains("hush"),
            "{query}: {error}"
        );
    }
    for query in [
        "channel_binding=prefer",
        "gssencmode=disable",
        "sslnegotiation=postgres",
        "target_session_attrs=read-write",
        "ssl_max_protocol_version=TLSv1.3",
        "ssl_min_protocol_version=TLSv1.1",
    ] {
        parsed(&format!("postgres://h/db?{query}"));
    }
    let error = parse(None, &[("PGSERVICE", "hush")]).err();
    assert!(error.is_some_and(|error| !error.to_string().contains("hush")));
}

#[test]
fn an_unknown_parameter_has_no_effect_and_options_reach_sqlx() {
    let parameters = parsed("postgres://h/db?pool=5&options=-c%20a%3D1&options[b]=2&Secret=x");
    for (name, expected) in [
        ("options", Some("-c a=1")),
        ("options[b]", Some("2")),
        ("pool", None),
        ("Secret", None),
    ] {
        assert_eq!(text(&parameters, name), expected, "{name}");
    }
}

#[test]
fn a_root_certificate_is_checked_unless_tls_is_optional() {
    for (mode, expected) in [
        ("prefer", PgSslMode::Prefer),
        ("require", PgSslMode::VerifyCa),
        ("verify-full", PgSslMode::VerifyFull),
    ] {
        let url = format!("postgres://h/db?sslmode={mode}&sslrootcert=/ca.pem");
        let found = format!("{:?}", parsed(&url).ssl_mode);
        assert_eq!(found, format!("{expected:?}"), "{mode}");
    }
}

proptest! {
    #[test]
    fn any_url_gives_bounded_parameters_or_an_error_without_its_words(
        rest in r"[a-z0-9:/?#@,%&=+\[\]-]{0,40}",
        query in "(host|port|hostaddr|sslmode|connect_timeout|service|options|password)=[a-z0-9,%]{0,12}",
    ) {
        let url = format!("postgres://{rest}hush7zq?{query}hush7zq");
        match Parameters::parse(Some(&url), |_| None) {
            Ok(parameters) => prop_assert!((1..=16).contains(&parameters.hosts.len())),
            Err(error) => prop_assert!(!error.to_string().contains("hush7zq"), "{}: {}", url, error),
        }
    }
}
