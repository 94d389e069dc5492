use super::*;

fn ike(text: &str) -> IkeProposal {
    text.parse().unwrap()
}

fn esp(text: &str) -> EspProposal {
    text.parse().unwrap()
}

fn transform(kind: u8, id: u16) -> Transform {
    Transform::new(TransformKind(kind), id)
}

fn aes_gcm(key_bits: u16) -> Transform {
    Transform::with_key_bits(TransformKind::ENCRYPTION, ENCR_AES_GCM_16, key_bits)
}

fn ike_offer(transforms: &[Transform]) -> SaPayload<'static> {
    let transforms = transforms.to_vec();
    SaPayload { proposals: vec![Proposal { number: 1, protocol: ProtocolId::IKE, spi: &[], transforms }] }
}

fn esp_offer(transforms: &[Transform]) -> SaPayload<'static> {
    let transforms = transforms.to_vec();
    SaPayload { proposals: vec![Proposal { number: 1, protocol: ProtocolId::ESP, spi: &[0, 0, 1, 0], transforms }] }
}

const WITHOUT: EspContext = EspContext::CreateChild { group: None };
const WITH_X25519: EspContext = EspContext::CreateChild { group: Some(31) };

#[test]
fn texts_read_back() {
    for text in ["aes128gcm16-prfsha256-x25519", "aes256gcm16-aes128gcm16-prfsha256-x25519"] {
        assert_eq!(ike(text).to_string(), text);
    }
    assert_eq!(esp("aes128gcm16").to_string(), "aes128gcm16-noesn");
    assert_eq!(esp("aes256gcm128-curve25519-esn-noesn").to_string(), "aes256gcm16-x25519-esn-noesn");
}

#[test]
fn texts_that_name_nothing_say_what_is_allowed() {
    let error = "aes128cbc-prfsha256-x25519".parse::<IkeProposal>().unwrap_err().to_string();
    assert!(error.contains("\"aes128cbc\"") && error.contains("aes128gcm16"), "{error}");
    let error = "aes128gcm16-x25519".parse::<IkeProposal>().unwrap_err().to_string();
    assert!(error.contains("no PRF"), "{error}");
    assert!("aes128gcm16-prfsha256".parse::<EspProposal>().is_err());
    assert!("".parse::<EspProposal>().is_err());
    assert!("aes128gcm16--x25519".parse::<EspProposal>().is_err());
}

#[test]
fn the_responders_order_decides() {
    let ours = [ike("aes256gcm16-prfsha256-x25519"), ike("aes128gcm16-prfsha256-x25519")];
    let theirs = [ike("aes128gcm16-prfsha256-x25519"), ike("aes256gcm16-prfsha256-x25519")];
    let chosen = choose_ike(&ours, &offer_ike(&theirs, &[]), false).unwrap();
    assert_eq!(chosen.suite.cipher, Cipher::AesGcm256);
    assert_eq!(chosen.payload(&[]).proposals[0].number, 2);
}

#[test]
fn hostile_09_proposals_that_cannot_be_met_are_passed_over() {
    let ours = [ike("aes128gcm16-prfsha256-x25519")];
    let good = [aes_gcm(128), transform(2, 5), transform(4, 31)];
    let odd = Transform { odd: true, ..aes_gcm(128) };
    assert!(choose_ike(&ours, &ike_offer(&good), false).is_some());
    for bad in [
        &[aes_gcm(128), transform(2, 5)][..],
        &[transform(1, 20), transform(2, 5), transform(4, 31)],
        &[aes_gcm(0), transform(2, 5), transform(4, 31)],
        &[aes_gcm(192), transform(2, 5), transform(4, 31)],
        &[odd, transform(2, 5), transform(4, 31)],
        &[aes_gcm(128), transform(2, 5), transform(4, 0)],
        &[aes_gcm(128), transform(2, 5), transform(4, 31), transform(6, 36)],
        &[aes_gcm(128), transform(2, 5), transform(4, 31), transform(200, 1)],
        &[aes_gcm(128), transform(2, 5), transform(4, 31), transform(3, 12)],
        &[],
    ] {
        assert_eq!(choose_ike(&ours, &ike_offer(bad), false), None, "{bad:?}");
        // Another proposal behind it still counts.
        let mut both = ike_offer(bad);
        both.proposals.extend(ike_offer(&good).proposals);
        assert!(choose_ike(&ours, &both, false).is_some());
    }
}

#[test]
fn unknown_transforms_of_known_types_are_skipped_one_by_one() {
    let ours = [ike("aes128gcm16-prfsha256-x25519")];
    let many = [transform(1, 12), aes_gcm(128), transform(2, 99), transform(2, 5), transform(4, 14), transform(4, 31)];
    let chosen = choose_ike(&ours, &ike_offer(&many), false).unwrap();
    assert_eq!(chosen.payload(&[]).proposals[0].transforms, [aes_gcm(128), transform(2, 5), transform(4, 31)]);
}

#[test]
fn an_integrity_algorithm_called_none_is_echoed() {
    let ours = [ike("aes128gcm16-prfsha256-x25519")];
    let offer = [aes_gcm(128), transform(2, 5), transform(3, 0), transform(4, 31)];
    let chosen = choose_ike(&ours, &ike_offer(&offer), false).unwrap();
    assert!(chosen.payload(&[]).proposals[0].transforms.contains(&transform(3, 0)));
}

#[test]
fn hostile_10_spis_of_the_wrong_size_are_passed_over() {
    let ours = [ike("aes128gcm16-prfsha256-x25519")];
    for (spi, first, rekey) in
        [(&[][..], true, false), (&[1; 8], false, true), (&[0; 8], false, false), (&[1; 4], false, false)]
    {
        let offer = offer_ike(&ours, spi);
        assert_eq!(choose_ike(&ours, &offer, false).is_some(), first, "{spi:?}");
        assert_eq!(choose_ike(&ours, &offer, true).is_some(), rekey, "{spi:?}");
    }
    let ours = [esp("aes128gcm16")];
    for (spi, accepted) in [(&[0, 0, 1, 0][..], true), (&[0, 0, 0, 255], false), (&[1; 8], false), (&[], false)] {
        assert_eq!(choose_esp(&ours, &offer_esp(&ours, spi, None), WITHOUT).is_some(), accepted, "{spi:?}");
    }
}

#[test]
fn a_configured_key_exchange_must_be_offered_and_none_configured_takes_either() {
    let with = esp_offer(&[aes_gcm(128), transform(4, 31), transform(5, 0)]);
    let without = esp_offer(&[aes_gcm(128), transform(5, 0)]);
    let either = esp_offer(&[aes_gcm(128), transform(4, 0), transform(4, 31), transform(5, 0)]);
    let kex = |ours: &str, offer: &SaPayload<'_>, context| {
        choose_esp(&[esp(ours)], offer, context).map(|chosen| chosen.suite.kex)
    };
    assert_eq!(kex("aes128gcm16-x25519", &with, WITH_X25519), Some(Some(Kex::X25519)));
    assert_eq!(kex("aes128gcm16-x25519", &either, WITHOUT), Some(Some(Kex::X25519)));
    assert_eq!(kex("aes128gcm16-x25519", &without, WITHOUT), None);
    assert_eq!(kex("aes128gcm16", &with, WITH_X25519), Some(Some(Kex::X25519)));
    assert_eq!(kex("aes128gcm16", &without, WITHOUT), Some(None));
    assert_eq!(kex("aes128gcm16", &either, WITHOUT), Some(None));
    assert_eq!(kex("aes128gcm16", &either, WITH_X25519), Some(Some(Kex::X25519)));
}

#[test]
fn ike_auth_makes_children_without_a_key_exchange_of_their_own() {
    let ours = [esp("aes128gcm16-x25519")];
    let without = esp_offer(&[aes_gcm(128), transform(5, 0)]);
    let with = esp_offer(&[aes_gcm(128), transform(4, 31), transform(5, 0)]);
    assert_eq!(choose_esp(&ours, &without, EspContext::IkeAuth).map(|chosen| chosen.suite.kex), Some(None));
    assert_eq!(choose_esp(&ours, &with, EspContext::IkeAuth), None);
}

#[test]
fn the_form_of_sequence_numbers_follows_our_order() {
    let both = esp_offer(&[aes_gcm(128), transform(5, 1), transform(5, 0)]);
    let esn =
        |ours: &str, offer: &SaPayload<'_>| choose_esp(&[esp(ours)], offer, WITHOUT).map(|chosen| chosen.suite.esn);
    assert_eq!(esn("aes128gcm16", &both), Some(false));
    assert_eq!(esn("aes128gcm16-esn-noesn", &both), Some(true));
    assert_eq!(esn("aes128gcm16-esn", &esp_offer(&[aes_gcm(128), transform(5, 0)])), None);
    assert_eq!(esn("aes128gcm16-noesn", &esp_offer(&[aes_gcm(128)])), Some(false));
}

#[test]
fn a_response_must_be_one_choice_out_of_our_offer() {
    let ours = [ike("aes128gcm16-prfsha256-x25519")];
    let good = ike_offer(&[aes_gcm(128), transform(2, 5), transform(4, 31)]);
    assert!(accept_ike(&ours, &good, false).is_some());
    let foreign = ike_offer(&[aes_gcm(256), transform(2, 5), transform(4, 31)]);
    assert!(accept_ike(&ours, &foreign, false).is_none());
    let ambiguous = ike_offer(&[aes_gcm(128), aes_gcm(256), transform(2, 5), transform(4, 31)]);
    assert!(accept_ike(&ours, &ambiguous, false).is_none());
    let mut two = good.clone();
    two.proposals.extend(good.proposals);
    assert!(accept_ike(&ours, &two, false).is_none());

    let ours = [esp("aes128gcm16")];
    let with = esp_offer(&[aes_gcm(128), transform(4, 31), transform(5, 0)]);
    assert!(accept_esp(&ours, &with, Some(Kex::X25519)).is_some());
    assert!(accept_esp(&ours, &with, None).is_none());
}
