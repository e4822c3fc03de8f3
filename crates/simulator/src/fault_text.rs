//! Fault rules as short texts, such as `500:share=0.01`, parsed.

use std::str::FromStr;

use super::faults::{A_SHARE, Fault, FaultError, FaultRule};

const A_NUMBER: &str = "a whole number";

fn parsed<T: FromStr>(
    key: &'static str,
    value: &str,
    expected: &'static str,
) -> Result<T, FaultError> {
    value
        .parse()
        .map_err(|_| FaultError::bad(key, value, expected))
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        if let Some(value) = text.strip_prefix("slow=") {
            let delay = humantime::parse_duration(value)
                .map_err(|_| FaultError::bad("delay", value, "a duration such as 250ms or 3s"))?;
            let ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            return Ok(Self::Slow { ms });
        }
        match text.replace('-', "_").as_str() {
            "drop" => Ok(Self::Drop),
            "drop_before" => Ok(Self::DropBefore),
            "hang" => Ok(Self::Hang),
            "garbage" => Ok(Self::Garbage),
            "half_body" => Ok(Self::HalfBody),
            other => {
                let code = other
                    .parse()
                    .map_err(|_| FaultError::UnknownFault(text.to_owned()))?;
                Ok(Self::Status {
                    code,
                    retry_after: None,
                    body: None,
                })
            }
        }
    }
}

impl FromStr for FaultRule {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let (fault, mut rest) = text.split_once(':').unwrap_or((text, ""));
        let mut rule = Self::from(fault.parse::<Fault>()?);
        while !rest.is_empty() {
            let (key, after) = rest
                .split_once('=')
                .ok_or_else(|| FaultError::UnknownKey(rest.to_owned()))?;
            // A body holds commas, so it takes all that is left.
            let (value, next) = match key {
                "body" => (after, ""),
                _ => after.split_once(',').unwrap_or((after, "")),
            };
            rule.set(key, value)?;
            rest = next;
        }
        rule.check()?;
        Ok(rule)
    }
}

impl FaultRule {
    fn set(&mut self, key: &str, value: &str) -> Result<(), FaultError> {
        match key {
            "app" => self.app = Some(value.to_owned()),
            "sender" => self.sender = Some(value.to_owned()),
            "destination" => self.destination = Some(value.to_owned()),
            "share" => self.share = parsed("share", value, A_SHARE)?,
            "count" => self.count = Some(parsed("count", value, A_NUMBER)?),
            "first_calls" => self.first_calls = Some(parsed("first_calls", value, A_NUMBER)?),
            "retry_after" => *self.detail("retry_after")? = Some(value.to_owned()),
            "body" => *self.detail("body")? = Some(value.to_owned()),
            _ => return Err(FaultError::UnknownKey(key.to_owned())),
        }
        Ok(())
    }

    fn detail(&mut self, key: &'static str) -> Result<&mut Option<String>, FaultError> {
        let fault = self.fault.name();
        match &mut self.fault {
            Fault::Status { retry_after, .. } if key == "retry_after" => Ok(retry_after),
            Fault::Status { body, .. } => Ok(body),
            _ => Err(FaultError::OnlyWithStatus { key, fault }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_from_short_texts() {
        let rule: FaultRule = "500:share=0.01".parse().unwrap();
        assert_eq!(
            rule.fault,
            Fault::Status {
                code: 500,
                retry_after: None,
                body: None
            }
        );
        assert!((rule.share - 0.01).abs() < f64::EPSILON);

        let rule: FaultRule = "429:retry_after=2,count=10".parse().unwrap();
        assert_eq!(
            rule.fault,
            Fault::Status {
                code: 429,
                retry_after: Some("2".to_owned()),
                body: None
            }
        );
        assert_eq!(rule.count, Some(10));

        let rule: FaultRule = "slow=250ms:destination=slow-".parse().unwrap();
        assert_eq!(rule.fault, Fault::Slow { ms: 250 });
        assert_eq!(rule.destination.as_deref(), Some("slow-"));

        let rule: FaultRule = "half-body:app=a,sender=s,first_calls=1".parse().unwrap();
        assert_eq!(
            rule,
            FaultRule {
                app: Some("a".to_owned()),
                sender: Some("s".to_owned()),
                first_calls: Some(1),
                ..FaultRule::from(Fault::HalfBody)
            }
        );
    }

    #[test]
    fn a_body_takes_the_rest_of_the_text() {
        let rule: FaultRule = r#"200:count=1,body={"result":"failed","code":1}"#.parse().unwrap();
        assert_eq!(
            rule.fault,
            Fault::Status {
                code: 200,
                retry_after: None,
                body: Some(r#"{"result":"failed","code":1}"#.to_owned())
            }
        );
    }

    #[test]
    fn a_bad_rule_is_refused_with_a_sentence() {
        let error = |text: &str| text.parse::<FaultRule>().unwrap_err().to_string();
        assert!(error("explode").starts_with("unknown fault `explode`: write a status"));
        assert!(error("").starts_with("unknown fault ``"));
        assert!(error("drop:often").starts_with("`often` is no condition of a fault"));
        assert!(error("drop:when=now").starts_with("`when` is no condition of a fault"));
        assert_eq!(
            error("drop:share=2"),
            "`2` can't be the share of a fault: it has to be a number from 0 to 1"
        );
        assert_eq!(
            error("drop:share=NaN"),
            "`NaN` can't be the share of a fault: it has to be a number from 0 to 1"
        );
        assert_eq!(
            error("99"),
            "`99` can't be the status of a fault: it has to be from 200 to 599"
        );
        assert_eq!(
            error("slow=quick"),
            "`quick` can't be the delay of a fault: it has to be a duration such as 250ms or 3s"
        );
        assert_eq!(
            error("drop:retry_after=2"),
            "retry_after only goes with a status, such as 503:retry_after=…, not with drop"
        );
    }

    #[test]
    fn a_rule_survives_json() {
        for text in [
            "503:retry_after=1,share=0.5",
            "slow=2s:count=3",
            "drop-before",
            "hang:app=a",
            "garbage:first_calls=2",
            "half_body:sender=s",
        ] {
            let rule: FaultRule = text.parse().unwrap();
            let json = serde_json::to_string(&rule).unwrap();
            assert_eq!(serde_json::from_str::<FaultRule>(&json).unwrap(), rule);
        }
    }
}
