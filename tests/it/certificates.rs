//! Certificates of a private authority.

use std::path::Path;

use harness::write;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use simulator::TlsFiles;

/// A private certificate authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its private key as PEM.
pub(crate) struct Certified {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a server with this host name or address.
    pub(crate) fn server(&self, host: &str) -> Certified {
        self.sign(host, ExtendedKeyUsagePurpose::ServerAuth, |_| {})
    }

    /// An expired certificate for a server.
    pub(crate) fn expired_server(&self, host: &str) -> Certified {
        self.sign(host, ExtendedKeyUsagePurpose::ServerAuth, |params| {
            params.not_after = date_time_ymd(2020, 1, 31);
        })
    }

    /// A certificate for a client with this name.
    pub(crate) fn client(&self, name: &str) -> Certified {
        self.sign(name, ExtendedKeyUsagePurpose::ClientAuth, |_| {})
    }

    fn sign(
        &self,
        name: &str,
        purpose: ExtendedKeyUsagePurpose,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Certified {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.distinguished_name = common_name(name);
        params.extended_key_usages = vec![purpose];
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Certified {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Certified {
    /// Writes both as files.
    pub(crate) fn write(&self, directory: &Path, name: &str) -> TlsFiles {
        TlsFiles {
            certificate: write(directory, &format!("{name}.pem"), &self.certificate),
            key: write(directory, &format!("{name}.key"), &self.key),
        }
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}
