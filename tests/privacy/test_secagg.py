"""Secure aggregation: the sum is exact, nothing else is learnt, and whoever breaks the protocol is refused."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from privacy.releases.sketches import ReleaseError
from privacy.secagg import keys, shamir
from privacy.secagg.coordinator import Coordinator, majority
from privacy.secagg.errors import TooFewError, WrongShareError
from privacy.secagg.fixed_point import FixedPoint
from privacy.secagg.masks import BLOCK_BYTES, Words, add_masks, keystream
from privacy.secagg.participant import Participant
from privacy.secagg.sizes import SEALED_BYTES

NAMES = [f"site{i}" for i in range(6)]
THRESHOLD = majority(len(NAMES))
STAGES = ("advertise", "share", "mask", "unmask")
Gone = Mapping[str, set[str]]


class Round:
    """A round over the six, whose sites are stored and read again before each stage, and of whom some leave."""

    def __init__(self, vectors: Mapping[str, Words], gone: Gone | None = None, context: bytes = b"1") -> None:
        self.vectors = vectors
        self.gone = dict(gone or {})
        self.states = {site: Participant(site, context).to_json() for site in vectors}
        self.coordinator = Coordinator(context, THRESHOLD)
        self.masked: dict[str, Words] = {}
        self.seen: list[bytes] = []

    def ask(self, stage: str, call: Callable[[Participant], Any], sites: Any) -> dict[str, Any]:
        answers = {}
        for site in sites:
            if any(site in self.gone.get(before, ()) for before in STAGES[: STAGES.index(stage)]):
                continue
            participant = Participant.from_json(self.states[site])
            answer = call(participant)
            self.states[site] = participant.to_json()
            if site not in self.gone.get(stage, ()):  # it may leave after it did its part, unheard
                answers[site] = answer
        return answers

    def share(self) -> None:
        self.advertised = self.ask("advertise", lambda one: one.advertise(), self.vectors)
        self.roster = self.coordinator.roster(self.advertised)
        self.sealed = self.ask("share", lambda one: one.share(self.roster, THRESHOLD), self.roster)
        self.delivered = self.coordinator.deliver(self.sealed)

    def mask(self) -> None:
        def mask(one: Participant) -> Words:
            words = self.vectors[one.site].copy()
            one.mask(self.delivered[one.site], words)
            return words

        self.masked = self.ask("mask", mask, self.delivered)
        for site, words in self.masked.items():
            self.coordinator.add(site, words)

    def total(self) -> Words:
        self.share()
        self.mask()
        self.survivors = self.coordinator.survivors()
        self.shares = self.ask("unmask", lambda one: one.unmask(self.survivors), self.survivors)
        return self.coordinator.total(self.shares)


def vectors(words: Any = np.uint64, size: int = 1000) -> dict[str, Words]:
    rng = np.random.default_rng(0)
    return {site: rng.integers(0, 2 ** (8 * np.dtype(words).itemsize), size, dtype=words) for site in NAMES}


def summed(these: Mapping[str, Words], sites: Any) -> Words:
    return np.sum([these[site] for site in sites], axis=0, dtype=these[NAMES[0]].dtype)


@pytest.mark.parametrize("words", [np.uint32, np.uint64])
@pytest.mark.parametrize("stage", [*STAGES, None])
def test_the_sum_is_exact_whoever_leaves_at_which_stage(words: Any, stage: str | None) -> None:
    these = vectors(words)
    leaving = {"site1", "site4"}
    found = Round(these, {stage: leaving} if stage else {}).total()
    counted = [site for site in NAMES if stage in (None, "unmask") or site not in leaving]
    assert np.array_equal(found, summed(these, counted))


def test_two_leave_after_masking_one_after_sharing_is_too_many() -> None:
    with pytest.raises(TooFewError, match="only 3 sites told their shares; secure aggregation needs 4"):
        Round(vectors(), {"share": {"site0"}, "unmask": {"site2", "site3"}}).total()


@pytest.mark.parametrize("stage", STAGES)
def test_below_the_threshold_there_is_no_sum(stage: str) -> None:
    with pytest.raises(TooFewError, match="only 3 sites"):
        Round(vectors(), {stage: {"site0", "site3", "site5"}}).total()


def test_one_may_leave_at_each_of_two_stages() -> None:
    these = vectors()
    found = Round(these, {"share": {"site5"}, "mask": {"site0"}}).total()
    assert np.array_equal(found, summed(these, NAMES[1:5]))


def test_no_message_repeats_from_round_to_round() -> None:
    first, second = Round(vectors()), Round(vectors())
    first.total(), second.total()

    def said(one: Round) -> list[bytes]:
        sealed = [content for each in one.sealed.values() for content in each.values()]
        told = [share for each in one.shares.values() for share in each.values()]
        halves = [key for both in one.advertised.values() for key in (both[:32], both[32:])]
        return [*halves, *sealed, *told, *(words.tobytes() for words in one.masked.values())]

    everything = said(first) + said(second)
    assert len(set(everything)) == len(everything)


@pytest.mark.parametrize("content", ["zeros", "ones"])
def test_a_masked_vector_looks_the_same_whatever_is_in_it(content: str) -> None:
    """Bytes of what the coordinator sees of one site are uniform, also of a vector of zeros."""
    value = 0 if content == "zeros" else 2**64 - 1
    one = Round({site: np.full(20_000, value, np.uint64) for site in NAMES})
    one.share()
    one.mask()
    for words in one.masked.values():
        assert chisquare(np.bincount(words.view(np.uint8), minlength=256)).pvalue > 1e-9


def test_fewer_shares_than_the_threshold_fit_every_secret() -> None:
    secret, other = bytes(range(32)), bytes(32)
    shares = shamir.split(secret, 4, 6, keystream(bytes(32), 3 * shamir.RANDOM_BYTES))
    known = {0: other.rjust(33, b"\0"), 1: shares[0], 2: shares[1], 3: shares[2]}
    assert shamir.combine({point: known[point] for point in (1, 2, 3)} | {4: shares[3]}) == secret
    fourth = _through(known, 4)
    assert shamir.combine({1: shares[0], 2: shares[1], 3: shares[2], 4: fourth}) == other


def _through(known: Mapping[int, bytes], at: int) -> bytes:
    total = 0
    for point, share in known.items():
        factor = 1
        for each in known:
            if each != point:
                factor = factor * (at - each) * pow(point - each, -1, shamir.PRIME) % shamir.PRIME
        total += int.from_bytes(share) * factor
    return (total % shamir.PRIME).to_bytes(33)


def test_only_with_seed_and_pair_masks_does_one_sites_vector_show() -> None:
    """What the protocol rests on: with both secrets of a site its vector shows, with one of them it does not."""
    these = vectors()
    one = Round(these)
    one.total()
    state = Participant.from_json(one.states["site2"])
    bound = keys.binding(b"1", THRESHOLD, one.roster)
    pairs = {other: keys.mask_key(state._masking, one.roster[other][32:], bound) for other in NAMES if other != "site2"}
    earlier = [key for other, key in pairs.items() if other < "site2"]
    later = [key for other, key in pairs.items() if other > "site2"]
    seed = [state._secret(b"seed")]
    for plus, minus, shows in ((later, [*earlier, *seed], True), (later, earlier, False), ([], seed, False)):
        words = one.masked["site2"].copy()
        add_masks(words, plus, minus)
        assert np.array_equal(words, these["site2"]) == shows


def test_no_site_tells_both_shares_of_one_site() -> None:
    one = Round(vectors(), {"mask": {"site0"}})
    one.total()
    first = Participant.from_json(one.states["site1"])
    both = {other: first._opened(other, content) for other, content in one.delivered["site1"].items()}
    for other in ("site0", "site2"):
        told = [shares[other] for site, shares in one.shares.items() if site == "site1"]
        assert told == [both[other][33:] if other == "site0" else both[other][:33]]
    for survivors in (NAMES, NAMES[1:5]):
        with pytest.raises(ReleaseError, match="two lists of who stayed"):
            first.unmask(survivors)
    assert first.unmask(one.survivors) == one.shares["site1"]


@pytest.mark.parametrize(
    ("survivors", "reason"),
    [
        (NAMES[:3], "3 sites are left of 6; secure aggregation needs 4"),
        ([], "names others than who was there"),
        (NAMES[1:], "names others than who was there"),
        ([*NAMES[:4], "stranger"], "names others than who was there"),
        ([*NAMES[:4], "site0"], "names others than who was there"),
    ],
)
def test_a_list_of_survivors_that_would_bare_a_site_is_refused(survivors: list[str], reason: str) -> None:
    one = Round(vectors())
    one.share()
    one.mask()
    with pytest.raises(ReleaseError, match=reason):
        Participant.from_json(one.states["site0"]).unmask(survivors)


def test_keys_that_repeat_are_none_or_are_not_ones_own_are_refused() -> None:
    one = Round(vectors())
    one.share()
    site = Participant.from_json(one.states["site0"])
    roster = one.roster
    fresh = Participant("site0", b"1", b"0" * 32)
    good = {**roster, "site0": fresh.advertise()}
    crossed = good["site2"][32:] + good["site1"][:32]
    for changed, reason in (
        ({**good, "site1": good["site2"]}, "stands twice"),
        ({**good, "site1": crossed}, "stands twice"),
        ({**good, "site1": b"short"}, "64 bytes"),
        ({**good, "site1": bytes(63) + b"\1"}, "is none"),
        (roster, "not those that this site has told"),
        ({k: v for k, v in good.items() if k != "site0"}, "not those that this site has told"),
    ):
        with pytest.raises(ReleaseError, match=reason):
            Participant("site0", b"1", b"0" * 32).share(changed, THRESHOLD)
    with pytest.raises(ReleaseError, match=r"stage 2 .* twice, with other keys"):
        site.share(good, THRESHOLD)
    with pytest.raises(ReleaseError, match=r"stage 2 .* twice, with other keys"):
        site.share(roster, THRESHOLD + 1)
    assert site.share(roster, THRESHOLD) == one.sealed["site0"]


@pytest.mark.parametrize(("sites", "threshold"), [(6, 3), (6, 7), (4, 2), (2, 2), (2, 3)])
def test_a_threshold_with_which_the_sites_could_be_played_off_is_refused(sites: int, threshold: int) -> None:
    roster = {site: Participant(site, b"1", site.encode()).advertise() for site in NAMES[:sites]}
    with pytest.raises(ReleaseError, match="secure aggregation needs more than half"):
        Participant(NAMES[0], b"1", NAMES[0].encode()).share(roster, threshold)


def test_stages_out_of_turn_and_second_vectors_are_refused() -> None:
    one = Round(vectors())
    one.share()
    site = Participant.from_json(one.states["site0"])
    with pytest.raises(ReleaseError, match=r"stage 4 .* before stage 3"):
        site.unmask(NAMES)
    with pytest.raises(ReleaseError, match=r"stage 3 .* before stage 2"):
        Participant("site0", b"1").mask(one.delivered["site0"], one.vectors["site0"])
    few = dict(list(one.delivered["site0"].items())[:2])
    with pytest.raises(ReleaseError, match="3 sites are left of 6; secure aggregation needs 4"):
        site.mask(few, one.vectors["site0"])
    site.mask(one.delivered["site0"], one.vectors["site0"])
    with pytest.raises(ReleaseError, match="asked for twice"):
        site.mask(one.delivered["site0"], one.vectors["site0"])
    assert site.has_masked(one.delivered["site0"])
    with pytest.raises(ReleaseError, match="with other shares"):
        site.has_masked(few)


def test_shares_open_only_for_whom_and_in_the_round_in_which_they_were_sealed() -> None:
    one, other = Round(vectors()), Round(vectors(), context=b"2")
    one.share(), other.share()
    mine = one.delivered["site0"]
    swapped = {**mine, "site1": mine["site2"], "site2": mine["site1"]}
    of_another = {**mine, "site1": one.delivered["site2"]["site1"]}
    reflected = {**mine, "site1": one.sealed["site0"]["site1"]}
    foreign = other.delivered["site0"]
    for sealed in (swapped, of_another, reflected, foreign, {**mine, "site1": bytes(SEALED_BYTES)}):
        with pytest.raises(ReleaseError, match="not sealed for this site in this round"):
            Participant.from_json(one.states["site0"]).mask(sealed, one.vectors["site0"])


def test_no_two_purposes_have_one_key() -> None:
    """Of one secret: another round, sender or receiver has another key, so that none seals two messages."""
    secret, bound = b"s" * 32, b"b" * 32
    sealed = keys.sealed(secret, bound, "a", "b", b"content")
    assert keys.opened(secret, bound, "a", "b", sealed) == b"content"
    for other in ((b"c" * 32, "a", "b"), (bound, "b", "a"), (bound, "ab", ""), (bound, "a", "c")):
        with pytest.raises(ValueError, match="does not open"):
            keys.opened(secret, *other, sealed)
    one, two = keys.Pair(b"1" * 32), keys.Pair(b"2" * 32)
    key = keys.mask_key(one, two.public, bound)
    assert key == keys.mask_key(two, one.public, bound) != keys.mask_key(one, two.public, b"c" * 32)
    assert keys.binding(b"1", 3, {"a": b"k"}) not in (
        keys.binding(b"1", 4, {"a": b"k"}),
        keys.binding(b"", 3, {"a": b"k"}),
    )


def test_sites_that_were_shown_different_rosters_do_not_open_each_others_shares() -> None:
    sites = {site: Participant(site, b"1") for site in NAMES}
    roster = {site: one.advertise() for site, one in sites.items()}
    other = {**roster, "site5": Participant("site5", b"1").advertise()}
    sealed = {site: one.share(other if site == "site1" else roster, THRESHOLD) for site, one in sites.items()}
    with pytest.raises(ReleaseError, match="not sealed for this site in this round"):
        sites["site0"].mask({site: sealed[site]["site0"] for site in NAMES[1:]}, vectors()["site0"])


def test_other_sites_have_shares_of_other_polynomials() -> None:
    """Of one secret: shares of two rounds that were shown other sites do not add up to a threshold."""
    told = []
    for fifth in (b"5" * 32, b"6" * 32):
        roots = [*(bytes([i]) * 32 for i in range(5)), fifth]
        sites = {site: Participant(site, b"1", root) for site, root in zip(NAMES, roots, strict=True)}
        sites["site0"].share({site: one.advertise() for site, one in sites.items()}, THRESHOLD)
        told.append(sites["site0"]._own_shares())
    assert not set(told[0].values()) & set(told[1].values())


def test_a_wrong_share_is_found_out() -> None:
    one = Round(vectors(), {"mask": {"site5"}})
    one.total()
    spoiled = {**one.shares["site1"], "site5": one.shares["site2"]["site5"]}
    again = Round(one.vectors)
    again.coordinator._roster, again.coordinator._sharing = one.roster, NAMES
    again.coordinator._survivors, again.coordinator._total = NAMES[:5], one.vectors["site0"].copy()
    with pytest.raises(WrongShareError, match="the shares of site5 do not fit together"):
        again.coordinator.total({**one.shares, "site1": spoiled})


def test_masks_are_the_key_stream_of_aes_128_in_counter_mode() -> None:
    """Test case 2 of McGrew and Viega, The Galois/Counter Mode of Operation, 2004; and counter mode from 2."""
    assert keystream(bytes(32), 16).hex() == "0388dace60b6a392f328c2b971b2fe78"
    counted = Cipher(algorithms.AES128(b"k" * 16), modes.CTR((2).to_bytes(16))).encryptor().update(bytes(999))
    assert keystream(b"k" * 32, 999) == counted
    for words in (np.uint32, np.uint64):
        drawn = np.zeros(3 * BLOCK_BYTES // np.dtype(words).itemsize + 5, words)
        add_masks(drawn, [b"k" * 32], [])
        assert np.array_equal(drawn, np.frombuffer(keystream(b"k" * 32, drawn.nbytes), drawn.dtype.newbyteorder("<")))
        add_masks(drawn, [b"l" * 32], [b"k" * 32, b"l" * 32])
        assert not drawn.any()


def test_shamirs_shares_are_the_polynomials_values() -> None:
    """f(x) = 7 + 5 x + 11 x^2."""
    random = (5).to_bytes(48) + (11).to_bytes(48)
    shares = shamir.split((7).to_bytes(32), 3, 4, random)
    assert [int.from_bytes(share) for share in shares] == [23, 61, 121, 203]
    assert shamir.combine({2: shares[1], 3: shares[2], 4: shares[3]}) == (7).to_bytes(32)
    largest = b"\xff" * 32
    shares = shamir.split(largest, 3, 5, keystream(b"r" * 32, 96))
    assert shamir.combine({1: shares[0], 3: shares[2], 5: shares[4]}) == largest
    with pytest.raises(ValueError, match="of no secret"):  # but for one chance in 2^248
        shamir.combine({1: (shamir.PRIME - 1).to_bytes(33)})


def test_the_prime_is_one() -> None:
    """Miller and Rabin's test to forty bases."""
    odd, twos = shamir.PRIME - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in range(2, 42):
        power = pow(base, odd, shamir.PRIME)
        chain = [power := pow(power, 2, shamir.PRIME) if step else power for step in range(twos)]
        assert chain[0] == 1 or shamir.PRIME - 1 in chain


values = st.floats(-50, 50, width=32)


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(1, 5000), st.lists(values, min_size=3, max_size=3)), min_size=1, max_size=8),
    bits=st.sampled_from([32, 64]),
)
def test_the_mean_is_as_near_as_is_stated(rows: list[tuple[int, list[float]]], bits: Any) -> None:
    coding = FixedPoint(8, 5000, 50.0, bits)
    total = np.sum([coding.encode([np.array(x, np.float32)], w) for w, x in rows], axis=0, dtype=coding.words)
    mean, weight = coding.decode(total, len(rows))
    weights, x = np.array([w for w, _ in rows]), np.array([x for _, x in rows])
    assert weight == weights.sum()
    expected = weights @ x / weight
    assert (np.abs(mean - expected) <= len(rows) / (2 * coding.scale * weight) + 2**-50 * np.abs(x).max()).all()


def test_at_the_edge_of_the_range_sums_do_not_wrap_and_beyond_it_sites_refuse() -> None:
    for bits in (32, 64):
        coding = FixedPoint(7, 999, 8.0, bits)
        assert 7 * (999 * 8.0 * coding.scale + 1) < 2 ** (bits - 1) <= 7 * (999 * 8.0 * coding.scale * 2 + 1)
        total = np.sum([coding.encode([np.array([8.0]), np.array([[-8.0]])], 999)] * 7, axis=0, dtype=coding.words)
        assert coding.decode(total, 7).values.tolist() == [8.0, -8.0]
        for value in (8.0001, -8.0001, np.inf, np.nan):
            with pytest.raises(ReleaseError, match="a number that is beyond 8 or is none"):
                coding.encode([np.array([0.0, value])], 999)
        for weight in (0, -1, 1000):
            with pytest.raises(ReleaseError, match=f"a weight of {weight} cannot be summed"):
                coding.encode([np.zeros(2)], weight)
    with pytest.raises(ValueError, match="do not fit into 32 bits"):
        FixedPoint(8, 2**20, 2.0**20, 32)


def test_a_sum_that_is_still_masked_is_no_mean() -> None:
    coding = FixedPoint(3, 1000, 8.0)
    for words in (coding.encode([np.zeros(5)], 1000), np.full(6, 2**63, np.uint64)):
        masked = words.copy()
        add_masks(masked, [b"k" * 32], [])
        with pytest.raises(WrongShareError, match="out of range"):
            coding.decode(masked, 1)
    with pytest.raises(WrongShareError, match="out of range"):
        coding.decode(np.array([2**63, 5], np.uint64), 1)
