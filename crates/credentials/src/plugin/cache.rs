//! Answers of one plugin that are still good.
//!
//! Pure: the moment is an argument.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    super::Auth,
    protocol::{CacheKeyType, Response},
};

/// What has expired is dropped this often, as in the kubelet.
const PURGE_INTERVAL: Duration = Duration::from_mins(15);

/// Keys as written, each with its credential.
pub type Logins = Arc<Vec<(String, Auth)>>;

#[derive(Debug, PartialEq, Eq, Hash)]
enum Key {
    Image(String),
    Registry(String),
    Global,
}

#[derive(Debug)]
struct Kept {
    logins: Logins,
    /// `None` where the moment is too far off to be told.
    expires: Option<Instant>,
}

impl Kept {
    fn is_good(&self, now: Instant) -> bool {
        self.expires.is_none_or(|expires| now <= expires)
    }
}

/// The answers of one plugin.
#[derive(Debug)]
pub struct Cache {
    kept: HashMap<Key, Kept>,
    purged: Instant,
}

impl Cache {
    /// Nothing is kept yet.
    pub fn new(now: Instant) -> Self {
        Self { kept: HashMap::new(), purged: now }
    }

    /// What is kept for the image: under itself, else under its registry, else for all images.
    pub fn get(&mut self, image: &str, now: Instant) -> Option<Logins> {
        if now.saturating_duration_since(self.purged) > PURGE_INTERVAL {
            self.kept.retain(|_, kept| kept.is_good(now));
            self.purged = now;
        }
        [Key::Image(image.to_owned()), Key::Registry(registry_of(image)), Key::Global]
            .iter()
            .find_map(|key| self.kept.get(key).filter(|kept| kept.is_good(now)))
            .map(|kept| Arc::clone(&kept.logins))
    }

    /// Keeps an answer that came for the image, if it says so, or if it says nothing and the configured duration is
    /// not zero. Answers without any credential are kept too.
    pub fn put(&mut self, image: &str, response: Response, default: Duration, now: Instant) -> Logins {
        let logins: Logins = Arc::new(response.auth);
        let key = match response.cache_key_type {
            CacheKeyType::Image => Key::Image(image.to_owned()),
            CacheKeyType::Registry => Key::Registry(registry_of(image)),
            CacheKeyType::Global => Key::Global,
        };
        let duration = match response.cache_duration {
            Some(duration) if duration.is_zero() => return logins,
            Some(duration) => duration.to_std(),
            None if default.is_zero() => return logins,
            None => Some(default),
        };
        match duration {
            Some(duration) => {
                let expires = now.checked_add(duration);
                self.kept.insert(key, Kept { logins: Arc::clone(&logins), expires });
            }
            // the kubelet stores it as expired already, in place of what stood there
            None => drop(self.kept.remove(&key)),
        }
        logins
    }
}

/// The text before the first slash, port included.
fn registry_of(image: &str) -> String {
    image.split('/').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::go_rules::duration::GoDuration;

    const HOUR: Duration = Duration::from_hours(1);

    fn moment() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn response(cache_key_type: CacheKeyType, duration: Option<&str>) -> Response {
        let cache_duration = duration.map(|text| GoDuration::parse(text).unwrap());
        Response { cache_key_type, cache_duration, auth: vec![("r".to_owned(), Auth::default())] }
    }

    /// Which of four images are found after an answer of this type for the first.
    fn found(cache_key_type: CacheKeyType) -> [bool; 4] {
        let now = moment();
        let mut cache = Cache::new(now);
        cache.put("r:5000/a/b", response(cache_key_type, Some("1h")), Duration::ZERO, now);
        ["r:5000/a/b", "r:5000/c", "r/a/b", "other/x"].map(|image| cache.get(image, now).is_some())
    }

    #[test]
    fn the_type_says_for_whom() {
        assert_eq!(found(CacheKeyType::Image), [true, false, false, false]);
        assert_eq!(found(CacheKeyType::Registry), [true, true, false, false]);
        assert_eq!(found(CacheKeyType::Global), [true, true, true, true]);
    }

    #[test]
    fn expired_is_what_is_strictly_later() {
        let now = moment();
        let mut cache = Cache::new(now);
        cache.put("r/a", response(CacheKeyType::Image, Some("1h")), Duration::ZERO, now);
        assert!(cache.get("r/a", now + HOUR).is_some());
        assert!(cache.get("r/a", now + HOUR + Duration::from_nanos(1)).is_none());
    }

    #[test]
    fn the_duration_may_be_absent_zero_or_negative() {
        let now = moment();
        let kept = |duration: Option<&str>, default: Duration| {
            let mut cache = Cache::new(now);
            cache.put("r/a", response(CacheKeyType::Image, duration), default, now);
            cache.get("r/a", now).is_some()
        };
        assert!(kept(None, HOUR) && !kept(None, Duration::ZERO));
        assert!(!kept(Some("0s"), HOUR) && !kept(Some("-1m"), HOUR) && kept(Some("2562047h"), HOUR));
    }

    #[test]
    fn a_negative_duration_takes_the_place_of_what_was_kept() {
        let now = moment();
        let mut cache = Cache::new(now);
        cache.put("r/a", response(CacheKeyType::Registry, Some("1h")), HOUR, now);
        cache.put("r/b", response(CacheKeyType::Registry, Some("-1h")), HOUR, now);
        assert!(cache.get("r/a", now).is_none());
    }

    #[test]
    fn what_has_expired_is_dropped_in_time() {
        let now = moment();
        let mut cache = Cache::new(now);
        cache.put("r/a", response(CacheKeyType::Image, Some("1m")), HOUR, now);
        cache.get("r/b", now + HOUR);
        assert!(cache.kept.is_empty());
    }
}
