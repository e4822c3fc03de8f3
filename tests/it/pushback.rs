//! The API or an operator holds, slows or pauses an app. The fleet obeys, recovers by itself, and charges no message.

mod credentials;
mod failover;
mod gateway;
mod operator;
mod outage;
mod peak_rate;
mod redrive;
mod throttle;
