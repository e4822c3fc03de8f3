use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::*;

fn parsed(url: &str) -> Parameters {
    Parameters::parse(Some(url), |_| None).unwrap_or_else(|error| panic!("{url}: {error}"))
}

fn refused(url: &str) -> String {
    let error = Parameters::parse(Some(url), |_| None).expect_err(url);
    error.to_string()
}

fn of_variables(
    url: Option<&str>,
    variables: &[(&str, &str)],
) -> Result<Parameters, ParameterError> {
    Parameters::parse(url, |name| {
        let found = variables.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

fn password(parameters: &Parameters) -> Option<&str> {
    parameters
        .password
        .as_ref()
        .map(ExposeSecret::expose_secret)
}

#[test]
fn a_url_names_servers_as_libpq_reads_it() {
    for (url, address) in [
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
        (
            "postgres:///db?host=h1,h2&hostaddr=10.0.0.1,10.0.0.2",
            "10.0.0.1:5432,10.0.0.2:5432",
        ),
        ("postgres:///db?hostaddr=::1", "[::1]:5432"),
        ("postgres://h1,h2:6000/db", "h1:5432,h2:6000"),
    ] {
        assert_eq!(parsed(url).address(), address, "{url}");
    }
    let many = vec!["h"; 17].join(",");
    for (url, mistake) in [
        (
            "postgres:///db?host=h1,h2&port=1,2,3",
            "give one port, or as many as hosts",
        ),
        (
            "postgres:///db?host=h1,h2&hostaddr=10.0.0.1",
            "give as many addresses as hosts",
        ),
        ("postgres:///db?hostaddr=h", "write IP addresses"),
        ("postgres://h:0/db", "numbers from 1 to 65535"),
        ("postgres://h:65536/db", "numbers from 1 to 65535"),
        ("postgres://a b/db", "write names, addresses"),
        (&format!("postgres://{many}/db"), "at most 16 hosts"),
    ] {
        assert!(refused(url).contains(mistake), "{url}: {}", refused(url));
    }
}

#[test]
fn a_url_is_split_where_libpq_splits_it() {
    let all = parsed("postgres://us%40er:p%2Fa+s@h/d%20b?application_name=mine&connect_timeout=7");
    assert_eq!(all.user.as_deref(), Some("us@er"));
    assert_eq!(password(&all), Some("p/a+s"));
    assert_eq!(all.database.as_deref(), Some("d b"));
    assert_eq!(all.application_name, "mine");
    assert_eq!(all.connect_timeout, Duration::from_secs(7));
    let by_query = parsed("postgres:///?user=u&password=p&dbname=d");
    assert_eq!(
        (by_query.user.as_deref(), password(&by_query)),
        (Some("u"), Some("p"))
    );
    assert_eq!(by_query.database.as_deref(), Some("d"));
    for url in [
        "mysql://h/db",
        "host=h dbname=db",
        "postgres://user:a/b@h/db",
        "postgres://user:a#b@h/db",
        "postgres://a:b:c/db",
        "postgres://[::1/db",
        "postgres://h/%ff",
        "postgres://h/a%00b",
    ] {
        assert!(refused(url).contains("not a Postgres URL"), "{url}");
    }
}

#[test]
fn several_servers_are_tried_for_one_that_takes_writes_unless_the_url_says_otherwise() {
    let attributes = |url| parsed(url).session_attributes;
    assert_eq!(attributes("postgres://h/db"), SessionAttributes::Any);
    assert_eq!(
        attributes("postgres://h1,h2/db"),
        SessionAttributes::ReadWrite
    );
    assert_eq!(
        attributes("postgres://h1,h2/db?target_session_attrs=any"),
        SessionAttributes::Any
    );
    assert!(parsed("postgres://h1,h2/db?load_balance_hosts=random").shuffles_hosts);
    assert!(refused("postgres://h/db?target_session_attrs=master").contains("read-write"));
    assert!(refused("postgres://h/db?load_balance_hosts=yes").contains("disable or random"));
}

#[test]
fn variables_fill_in_what_the_url_leaves_out() {
    let variables = [
        ("PGHOST", "v1,v2"),
        ("PGPORT", "7000,7001"),
        ("PGUSER", "vu"),
        ("PGPASSWORD", "vp"),
        ("PGDATABASE", "vd"),
        ("PGPASSFILE", "/secrets/pgpass"),
        ("PGSSLMODE", "verify-ca"),
        ("PGSSLROOTCERT", "/ca.pem"),
        ("PGSSLCERT", "/client.pem"),
        ("PGSSLKEY", "/client.key"),
        ("PGTARGETSESSIONATTRS", "primary"),
        ("PGLOADBALANCEHOSTS", "random"),
        ("PGCONNECT_TIMEOUT", "9"),
        ("PGAPPNAME", "va"),
    ];
    let alone = of_variables(None, &variables).expect("parameters");
    assert_eq!(alone.address(), "v1:7000,v2:7001");
    assert_eq!(
        (alone.user.as_deref(), password(&alone)),
        (Some("vu"), Some("vp"))
    );
    assert_eq!(alone.database.as_deref(), Some("vd"));
    assert_eq!(alone.passfile.as_deref(), Some("/secrets/pgpass".as_ref()));
    assert!(matches!(alone.ssl_mode, PgSslMode::VerifyCa));
    let file = |path: &str, setting: &str| {
        Some(NamedFile {
            setting: setting.into(),
            path: path.into(),
        })
    };
    assert_eq!(alone.root_certificate, file("/ca.pem", "PGSSLROOTCERT"));
    assert_eq!(alone.client_certificate, file("/client.pem", "PGSSLCERT"));
    assert_eq!(alone.client_key, file("/client.key", "PGSSLKEY"));
    assert_eq!(alone.session_attributes, SessionAttributes::Primary);
    assert!(alone.shuffles_hosts);
    assert_eq!(alone.connect_timeout, Duration::from_secs(9));
    assert_eq!(alone.application_name, "va");

    let both = of_variables(Some("postgres://u@h1:1,h2:2/d?sslmode=disable"), &variables);
    let both = both.expect("parameters");
    assert_eq!(both.address(), "h1:1,h2:2");
    assert_eq!(
        (both.user.as_deref(), password(&both)),
        (Some("u"), Some("vp"))
    );
    assert_eq!(both.database.as_deref(), Some("d"));
    // An address of a variable belongs to the host of a variable.
    let addressed = [("PGHOSTADDR", "10.0.0.1")];
    let url = of_variables(Some("postgres://h/db"), &addressed).expect("parameters");
    assert_eq!(url.address(), "h:5432");
    assert_eq!(
        of_variables(None, &addressed)
            .expect("parameters")
            .address(),
        "10.0.0.1:5432"
    );
    // An empty variable is one that is not set.
    let empty = [("PGPORT", ""), ("PGSERVICE", ""), ("PGSSLMODE", "")];
    assert_eq!(
        of_variables(Some("postgres://h/db"), &empty)
            .expect("parameters")
            .address(),
        "h:5432"
    );
}

#[test]
fn a_parameter_that_can_not_be_honoured_is_refused_by_its_name_and_never_with_its_value() {
    for (query, setting) in [
        ("service=hush", "service of DATABASE_URL is not supported"),
        (
            "channel_binding=require",
            "channel_binding of DATABASE_URL is not supported",
        ),
        ("require_auth=hush", "require_auth"),
        ("requirepeer=hush", "requirepeer"),
        ("gssencmode=require", "gssencmode"),
        ("sslcrl=hush", "sslcrl"),
        ("sslpassword=hush", "sslpassword"),
        ("sslnegotiation=direct", "sslnegotiation"),
        (
            "ssl_min_protocol_version=TLSv1.3",
            "ssl_min_protocol_version",
        ),
        ("sslrootcert=system", "sslrootcert=system is not supported"),
        ("sslmode=hush", "sslmode of DATABASE_URL is not valid"),
        (
            "connect_timeout=0",
            "connect_timeout of DATABASE_URL is not valid: write 1 to 60",
        ),
        ("connect_timeout=hush", "connect_timeout"),
        ("port=hush", "port of DATABASE_URL is not valid"),
        ("statement-cache-capacity=hush", "statement-cache-capacity"),
        (
            "hostaddr=10.0.0.1&sslmode=verify-full",
            "hostaddr of DATABASE_URL with sslmode=verify-full",
        ),
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
        "ssl=true",
    ] {
        assert!(
            parsed(&format!("postgres://h/db?{query}"))
                .unknown
                .is_empty(),
            "{query}"
        );
    }
    let error = of_variables(None, &[("PGSERVICE", "hush")]).expect_err("refused");
    assert!(
        error.to_string().starts_with("PGSERVICE is not supported"),
        "{error}"
    );
    let error = of_variables(None, &[("PGPORT", "hush")]).expect_err("refused");
    assert!(
        error.to_string().starts_with("PGPORT is not valid"),
        "{error}"
    );
}

#[test]
fn an_unknown_parameter_is_kept_for_the_warning_and_options_reach_the_server() {
    let url = "postgres://h/db?keepalives=1&options=-c%20a%3D1&options[b]=2&Secret=x";
    let parameters = parsed(url);
    assert_eq!(parameters.unknown, ["keepalives", "Secret"]);
    assert_eq!(parameters.options, ["-c a=1", "-c b=2"]);
    assert!(!format!("{parameters:?}").contains("Secret"));
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
