"""The mutants of secure aggregation, of hospitals' policies and of their totals."""

from mutant import Mutant, within

PARTICIPANT, KEYS, SHAMIR = "privacy/secagg/participant.py", "privacy/secagg/keys.py", "privacy/secagg/shamir.py"
FIXED_POINT, COORDINATOR = "privacy/secagg/fixed_point.py", "privacy/secagg/coordinator.py"
TOTAL, POLICY = "privacy/total.py", "privacy/policy.py"
GATE, GUARD, SECURE, CLIENT = "fedcore/gate.py", "fedcore/guard.py", "fedcore/secure.py", "fedcore/client.py"
SECAGG_TESTS, POLICY_TESTS = "tests/privacy/test_secagg.py", "tests/privacy/test_policy.py"
GATE_TESTS, SECURE_TESTS = "tests/fedcore/federation/test_policy.py", "tests/fedcore/federation/test_secure.py"

GUARDING: tuple[Mutant, ...] = (
    *within(
        PARTICIPANT,
        SECAGG_TESTS,
        (
            "half of the sites are enough",
            "if not max(FEWEST, len(roster) // 2 + 1) <= threshold <= len(roster):",
            "if not len(roster) // 2 <= threshold <= len(roster):",
            "test_a_threshold_with_which_the_sites_could_be_played_off_is_refused",
        ),
        (
            "of who stayed the key is told",
            "both[:SHARE_BYTES] if other in chosen else both[SHARE_BYTES:]",
            "both[SHARE_BYTES:] if other in chosen else both[:SHARE_BYTES]",
            "test_no_site_tells_both_shares_of_one_site",
        ),
        (
            "two lists of who stayed are answered",
            "if self._survivors and chosen != self._survivors:",
            "if False:",
            "test_no_site_tells_both_shares_of_one_site",
        ),
        (
            "two vectors go under the same masks",
            "if self._sealed:",
            "if False:",
            "test_stages_out_of_turn_and_second_vectors_are_refused",
        ),
        (
            "keys that are said to be its own pass",
            "if roster.get(self.site) != self.advertise():",
            "if False:",
            "test_keys_that_repeat_are_none_or_are_not_ones_own_are_refused",
        ),
        (
            "a key may stand twice",
            "if len(set(halves)) != len(halves):",
            "if False:",
            "test_keys_that_repeat_are_none_or_are_not_ones_own_are_refused",
        ),
        (
            "no mask of the seed",
            '[self._secret(b"seed"), *earlier], later)',
            "earlier, later)",
            "test_only_with_seed_and_pair_masks_does_one_sites_vector_show",
        ),
        (
            "no masks with other sites",
            '[self._secret(b"seed"), *earlier], later)',
            '[self._secret(b"seed")], [])',
            "test_only_with_seed_and_pair_masks_does_one_sites_vector_show",
        ),
        (
            "a site masks for however few others",
            "self._enough([self.site, *sealed])",
            "pass",
            "test_stages_out_of_turn_and_second_vectors_are_refused",
        ),
        (
            "masks are taken off however few stayed",
            "self._enough(chosen)",
            "pass",
            "test_a_list_of_survivors_that_would_bare_a_site_is_refused",
        ),
        (
            "two lists of sites have shares of the same polynomials",
            "return keys.derived(self._root, label, self._bound)",
            "return keys.derived(self._root, label)",
            "test_other_sites_have_shares_of_other_polynomials",
        ),
    ),
    *within(
        KEYS,
        SECAGG_TESTS,
        (
            "keys do not hold the threshold",
            "for part in (context, threshold.to_bytes(4), *named):",
            "for part in (context, *named):",
            "test_no_two_purposes_have_one_key",
        ),
        (
            "what is sealed for one site opens at another",
            "bound, sender.encode(), receiver.encode())",
            "bound, sender.encode())",
            "test_no_two_purposes_have_one_key",
        ),
    ),
    *within(
        SHAMIR,
        SECAGG_TESTS,
        (
            "one share less than the threshold is enough",
            "% PRIME for one in drawn)]",
            "% PRIME for one in drawn[1:])]",
            "test_shamirs_shares_are_the_polynomials_values",
        ),
    ),
    *within(
        FIXED_POINT,
        SECAGG_TESTS,
        (
            "sums may wrap",
            "room = (2.0 ** (self.bits - 1) - self.sites)",
            "room = (2.0**self.bits - self.sites)",
            "test_at_the_edge_of_the_range_sums_do_not_wrap_and_beyond_it_sites_refuse",
        ),
        (
            "no number passes for one",
            "if not max(wide.max(), -wide.min()) <= self.bound * factor:",
            "if max(wide.max(), -wide.min()) > self.bound * factor:",
            "test_at_the_edge_of_the_range_sums_do_not_wrap_and_beyond_it_sites_refuse",
        ),
    ),
    *within(
        COORDINATOR,
        SECAGG_TESTS,
        (
            "a wrong share makes a wrong sum",
            "if pair.public != self._roster[site][KEY_BYTES:]:",
            "if False:",
            "test_a_wrong_share_is_found_out",
        ),
    ),
    *within(
        TOTAL,
        POLICY_TESTS,
        (
            "each analysis may spend the total",
            "if before + asked > most:",
            "if asked > most:",
            "test_budgets_add_up_to_the_total_and_no_further",
        ),
        (
            "what was spent without a policy does not count",
            "self._see({**entries, **others}, analysis, budget, within)",
            "self._see(entries, analysis, budget, within)",
            "test_what_the_ledgers_show_counts_whoever_lost_the_total_or_ran_without_a_policy",
        ),
        (
            "a line may be changed or cut out",
            'line.endswith(b"\\n") and content["after"] == last',
            'line.endswith(b"\\n")',
            "test_a_damaged_total_is_refused_and_left_as_it_is",
        ),
        (
            "a clock may go back",
            "if self.now() < datetime.fromisoformat(at):",
            "if False:",
            "test_a_clock_that_went_back_is_refused",
        ),
        (
            "a total can be begun anew",
            "self.path.hardlink_to(whole)",
            "whole.replace(self.path)",
            "test_only_begin_begins_and_only_once",
        ),
        (
            "budgets are summed up as binary fractions",
            "return Decimal(repr(float(number)))",
            "return Decimal(number)",
            "test_tenths_add_up_as_they_are_written",
        ),
    ),
    *within(
        POLICY,
        POLICY_TESTS,
        (
            "a rule that is misspelt is none",
            'extra="forbid"',
            'extra="ignore"',
            "test_a_file_that_is_no_policy_is_a_sentence",
        ),
        (
            "of a rule that stands twice the second wins",
            "if isinstance(key, yaml.ScalarNode) and key.value in met:",
            "if False:",
            "test_a_file_that_is_no_policy_is_a_sentence",
        ),
        (
            "a hospital may let smaller counts leave",
            "ge=SMALLEST,",
            "ge=1,",
            "test_a_file_that_is_no_policy_is_a_sentence",
        ),
    ),
    *within(
        GATE,
        GATE_TESTS,
        (
            "messages after the first are not held against the policy",
            "_examine(desk, desk.guard, asked)",
            "pass",
            "test_a_coordinator_that_proposes_one_thing_and_does_another_is_refused",
        ),
        (
            "the setting that a message asks for is not held against the policy",
            'Proposal.of(desk.memory.agreed, str(setting or "{}"))',
            "Proposal.of(desk.memory.agreed)",
            "test_a_coordinator_that_proposes_one_thing_and_does_another_is_refused",
        ),
        (
            "nothing is reserved before the first release",
            "desk.guard.reserve(desk.protection)",
            "pass",
            "test_what_was_reserved_stays_so_when_the_site_is_killed_before_it_released",
        ),
    ),
    *within(
        GUARD,
        GATE_TESTS,
        (
            "a site of few patients takes part",
            "if patients < smallest:",
            "if False:",
            "test_a_rule_that_is_broken_keeps_the_site_out_and_is_named",
        ),
        (
            "a policy ends a day early",
            "datetime.now(UTC).date() > last:",
            "datetime.now(UTC).date() >= last:",
            "test_a_rule_that_is_kept_lets_the_site_take_part",
        ),
        (
            "own code runs unread where privacy is required",
            "if own and self.policy.privacy.required and not pinned:",
            "if False:",
            "test_own_code_is_refused_unless_its_hash_is_listed_and_is_not_even_imported",
        ),
        (
            "a total is not looked at while it is not written",
            "self.total.see(self.analysis, protection.budget, limit.budget)",
            "pass",
            "test_the_total_of_all_analyses_is_kept_and_runs_of_one_count_once",
        ),
        (
            "rows leave for a comparison",
            'if asked.strategy == "local":',
            "if True:",
            "test_rows_and_models_do_not_leave_for_a_comparison_either",
        ),
    ),
    *within(
        GUARD,
        SECURE_TESTS,
        (
            "who wants sums only takes part in the clear",
            'if self.policy.secure_aggregation == "required" and not asked.secure:',
            "if False:",
            "test_a_hospital_that_wants_sums_only_takes_part_in_them_and_in_nothing_else",
        ),
    ),
    *within(
        SECURE,
        SECURE_TESTS,
        (
            "asked again a site trains again",
            "if participant.has_masked(sealed):",
            "if False:",
            "test_a_site_says_the_same_again_and_never_a_second_vector",
        ),
        (
            "a site is the same participant in each round",
            "if before is not None and before.context == context:",
            "if before is not None:",
            "test_a_strategy_that_sums_comes_to_the_same_model_and_losses",
        ),
    ),
    *within(
        CLIENT,
        GATE_TESTS,
        (
            "sketches of fewer leave than the policy lets",
            "chosen.sketch(training, here.minimum)",
            "chosen.sketch(training)",
            "test_sketches_of_fewer_than_the_smallest_count_do_not_leave",
        ),
        (
            "tuning counts of fewer leave than the policy lets",
            "partial(messages.released, minimum=here.minimum)",
            "messages.released",
            "test_counts_below_the_smallest_do_not_leave",
        ),
        (
            "losses over fewer leave than the policy lets",
            "few = messages.released(split.patients, here.minimum) == 0",
            "few = messages.released(split.patients) == 0",
            "test_counts_below_the_smallest_do_not_leave",
        ),
    ),
    *within(
        CLIENT,
        SECURE_TESTS,
        (
            "a site sends its model without a mask",
            'if here.memory.agreed.get(SUMS_ONLY) == "true":',
            "if False:",
            "test_agreed_sites_send_no_model_without_a_mask",
        ),
    ),
)
