use std::io::Write;

use hyper::HeaderMap;

use super::*;

#[test]
fn apps_that_would_share_a_budget_are_refused() {
    let apps_with = |other_id| {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        for (alias, id) in [("a", "1"), ("b", other_id)] {
            let app = format!("[apps.{alias}]\napp_id = '{id}'\napp_certificate = 'c'\n");
            file.write_all(app.as_bytes()).expect("written");
        }
        apps(RawApp::default(), Some(file.path())).map(|apps| apps.len())
    };
    assert_eq!(apps_with("2").expect("two apps"), 2);
    let error = apps_with("1").expect_err("the same app ID").to_string();
    assert!(error.contains("make them one app"), "{error}");
}

fn basic() -> RawApp {
    RawApp {
        app_id: Some("id".into()),
        api_key: Some("key".into()),
        api_secret: Some("hush".into()),
        ..RawApp::default()
    }
}

#[test]
fn an_app_without_a_base_url_calls_only_the_vendors_first_host() {
    let hosts = |base_url: Option<&str>| {
        let app = RawApp {
            base_url: base_url.map(str::to_owned),
            ..basic()
        };
        app.check("a").expect("an app").base_urls.len()
    };
    assert_eq!((hosts(None), hosts(Some("global"))), (1, 2));
}

#[test]
fn invisible_characters_around_every_value_are_trimmed() {
    let around = |value: &str| Some(format!("\u{feff} {value}\u{a0}\r\n"));
    let app = RawApp {
        app_id: around("id"),
        token: around("T"),
        uid: around("u"),
        token_headers: around("authorization"),
        base_url: around("http://127.0.0.1:1"),
        api_key_file: Some("\r\n".into()),
        ..RawApp::default()
    };
    let app = app.check("a").expect("an app");
    assert_eq!(app.app_id, "id");
    let mut headers = HeaderMap::new();
    app.credentials.sign("u", &mut headers).expect("signed");
    assert_eq!(headers["authorization"], "agora token=T");
}

#[test]
fn each_way_to_sign_in_is_accepted_and_an_incoherent_app_is_refused() {
    assert!(matches!(
        basic().check("a").expect("an app").credentials,
        Credentials::Basic { .. }
    ));
    let token = RawApp {
        token: Some("T".into()),
        uid: Some("u".into()),
        app_id: Some("id".into()),
        ..RawApp::default()
    };
    assert!(matches!(
        token.check("a").expect("an app").credentials,
        Credentials::Token { .. }
    ));
    let certificate = RawApp {
        app_certificate: Some("c".into()),
        app_id: Some("id".into()),
        ..RawApp::default()
    };
    assert!(matches!(
        certificate.check("a").expect("an app").credentials,
        Credentials::Certificate { .. }
    ));
    let refused = |change: fn(&mut RawApp)| {
        let mut app = basic();
        change(&mut app);
        assert!(app.check("a").is_err());
    };
    refused(|app| app.token = Some("T".into()));
    refused(|app| app.api_secret = None);
    refused(|app| app.api_secret_file = Some("/f".into()));
    refused(|app| app.api_key = Some("two\nlines".into()));
    refused(|app| app.api_key = Some(" \r\n".into()));
    refused(|app| (app.api_key, app.api_secret) = (None, None));
    refused(|app| {
        (app.api_key, app.api_secret) = (None, None);
        app.token = Some("T".into());
    });
    for uid in ["\"alice\"", "a/b", "a\u{a0}b"] {
        let app = RawApp {
            token: Some("T".into()),
            uid: Some(uid.into()),
            app_id: Some("id".into()),
            ..RawApp::default()
        };
        assert!(app.check("a").is_err(), "{uid}");
    }
    refused(|app| app.rate = Some(0.0));
    refused(|app| app.rate = Some(f64::NAN));
    refused(|app| app.max_in_flight = Some(0));
    refused(|app| app.app_id = Some("a/b".into()));
    refused(|app| app.base_url = Some("nowhere".into()));
    assert!(basic().check("no spaces").is_err());
}

#[test]
fn a_misspelt_key_is_named_without_its_value() {
    let apps = parse_apps("[apps.one]\napp_id = \"1\"\nrate = 100\n[apps.two]\napp_id = \"2\"\n")
        .expect("apps");
    assert_eq!(apps.keys().collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(apps["one"].rate, Some(100.0));
    let error = parse_apps("[apps.one]\napi_secrit = \"hush\"\n").expect_err("an error");
    assert!(
        error.contains("api_secrit") && error.ends_with("(line 2)") && !error.contains("hush"),
        "{error}"
    );
}

#[test]
fn a_value_of_the_wrong_kind_is_not_shown() {
    for text in [
        "[apps.one]\napi_secret = 471147114711",
        "[apps.one]\nrate = \"471147114711\"",
        "[apps.one]\nrate = 471147114711.471147114711.471147114711",
        "[apps.one]\n471147114711 = \"\"",
        "[apps.one]\napi_secret = 471147114711471147114711471147114711",
        "[apps.one]\napi_secret = \"471147114711",
        "apps = \"471147114711\"",
        "[apps.one]\ntoken = [\"471147114711\"]",
    ] {
        let error = parse_apps(text).expect_err("an error");
        assert!(!error.contains("4711"), "{text}: {error}");
    }
}
