"""The mutants of the privacy code: what is broken, and by which test it must be noticed."""

from guarding import GUARDING
from mutant import Mutant, within

ACCOUNTING, LEDGER, NOISE = "privacy/accounting.py", "privacy/ledger.py", "privacy/noise.py"
DPSGD, CLIPPING = "privacy/dpsgd.py", "privacy/clipping.py"
TERMS, PROTECTION = "privacy/terms.py", "fedcore/protection.py"
SKETCHES, MESSAGES = "privacy/releases/sketches.py", "privacy/releases/messages.py"
CLIENT, DESK = "fedcore/client.py", "fedcore/desk.py"


MUTANTS: tuple[Mutant, ...] = (
    *within(
        ACCOUNTING,
        "tests/privacy/test_accounting.py",
        (
            "releases of all patients are counted once",
            "precision.append(one.count / one.noise_multiplier**2)",
            "precision.append(1 / one.noise_multiplier**2)",
            "test_releases_of_all_patients_cost_what_the_closed_form_says",
        ),
        (
            "the accountant is reset every round",
            "sampled[key] = sampled.get(key, 0) + one.count",
            "sampled[key] = one.count",
            "test_an_accountant_that_is_reset_every_round_tells_of_one_round",
        ),
        (
            "half of the sampling rate is accounted",
            "sampling_prob=one.sampling_rate,",
            "sampling_prob=one.sampling_rate / 2,",
            "test_a_sampled_step_costs_what_its_two_mixtures_come_to",
        ),
        (
            "one step is accounted for all",
            "return single.self_compose(one.count) if one.count > 1 else single",
            "return single",
            "test_three_accountants_agree",
        ),
        (
            "privacy losses are rounded optimistically",
            "use_connect_dots=True,",
            "use_connect_dots=False, pessimistic_estimate=False,",
            "test_releases_of_all_patients_cost_what_the_closed_form_says",
        ),
        (
            "the second kind of release is forgotten",
            "for one in mechanisms[1:]:",
            "for one in mechanisms[2:]:",
            "test_three_accountants_agree",
        ),
        (
            "noise is sought without what is released beside it",
            "epsilon([*others, Mechanism(noise, sampling_rate, count)], delta, accountant) <= target",
            "epsilon([Mechanism(noise, sampling_rate, count)], delta, accountant) <= target",
            "test_the_noise_found_is_enough_and_hardly_more",
        ),
        (
            "the noise found is a little too small",
            "        low, high = (low, middle) if enough(middle) else (middle, high)\n    return high",
            "        low, high = (low, middle) if enough(middle) else (middle, high)\n    return low",
            "test_the_noise_found_is_enough_and_hardly_more",
        ),
    ),
    *within(
        LEDGER,
        "tests/privacy/test_ledger.py",
        (
            "delta may be as large as one patient's share",
            "most = 1 / (10 * max(patients, 1))",
            "most = 1 / max(patients, 1)",
            "test_a_budget_out_of_bounds_is_refused",
        ),
        (
            "the budget may be passed",
            "if spent > self.budget.epsilon:",
            "if spent > 2 * self.budget.epsilon:",
            "test_what_would_pass_the_budget_is_refused_and_not_written",
        ),
        (
            "earlier spends are forgotten",
            "self._allow((*self.mechanisms(), mechanism))",
            "self._allow((mechanism,))",
            "test_two_processes_of_one_site_keep_one_ledger",
        ),
        (
            "a lost ledger begins from zero",
            "elif expected or _head(path).is_file():",
            "elif False:",
            "test_a_lost_ledger_and_one_of_another_budget_are_refused",
        ),
        (
            "a ledger of another budget is taken",
            "if content != told:",
            "if False:",
            "test_a_lost_ledger_and_one_of_another_budget_are_refused",
        ),
        (
            "a damaged ledger is taken",
            'whole = line.endswith(b"\\n") and content.pop("after") == self._last',
            'whole = bool(content.pop("after"))',
            "test_a_damaged_ledger_is_refused_and_never_begun_anew",
        ),
        (
            "a further release of a known key is free",
            "if repeats and known is not None and known.mechanism == mechanism:",
            "if known is not None and known.mechanism == mechanism:",
            "test_a_release_made_once_more_is_a_spend_unless_its_noise_is_the_same",
        ),
        (
            "other processes' spends are not seen",
            "if os.fstat(file.fileno()).st_size != self._size:",
            "if False:",
            "test_two_processes_of_one_site_keep_one_ledger",
        ),
        (
            "spends are not written to disk",
            'with self._path.open("ab") as file:\n                    file.write(line.encode())',
            'with self._path.open("ab") as file:\n                    file.write(b"")',
            "test_it_says_what_all_releases_together_come_to",
        ),
        (
            "what was settled is allowed without end",
            "one.count <= sampled.get((one.noise_multiplier, one.sampling_rate), 0)",
            "(one.noise_multiplier, one.sampling_rate) in sampled",
            "test_what_was_settled_is_allowed_to_the_last_and_nothing_else",
        ),
    ),
    *within(
        NOISE,
        "tests/privacy/test_dpsgd.py",
        (
            "cryptographic noise is half as large",
            "np.asarray(each.sum(axis=0) / 2, dtype=np.float64)",
            "np.asarray(each.sum(axis=0) / 4, dtype=np.float64)",
            "test_the_noise_has_the_size_that_is_accounted",
        ),
        (
            "cryptographic draws are from the lower half",
            "words.astype(np.float64) * 2.0**-53",
            "words.astype(np.float64) * 2.0**-54",
            "test_cryptographic_noise_is_never_the_same_and_normal",
        ),
        (
            "cryptographic noise follows from a seed",
            'np.frombuffer(os.urandom(8 * size), dtype="<u8")',
            'np.frombuffer(np.random.default_rng(0).bytes(8 * size), dtype="<u8")',
            "test_cryptographic_noise_is_never_the_same_and_normal",
        ),
    ),
    *within(
        DPSGD,
        "tests/privacy/test_dpsgd.py",
        (
            "half the noise",
            "(value + noise * self._normal(value)) / expected",
            "(value + 0.5 * noise * self._normal(value)) / expected",
            "test_the_noise_has_the_size_that_is_accounted",
        ),
        (
            "the sum is divided by the number of patients drawn",
            "(value + noise * self._normal(value)) / expected",
            "(value + noise * self._normal(value)) / max(1, int(drawn.sum()))",
            "test_the_noise_has_the_size_that_is_accounted",
        ),
        (
            "a patient's rows are clipped in two parts",
            "if end - cuts[-1] > PHYSICAL and begin > cuts[-1]:",
            "if end - cuts[-1] > PHYSICAL and (begin := begin - 1) > cuts[-1]:",
            "test_many_rows_are_taken_a_part_at_a_time_and_none_of_a_patients_apart",
        ),
        (
            "an adaptive bound's count is free",
            "1 / math.sqrt(self.noise_multiplier**-2 - (2 * self._count_deviation) ** -2)",
            "self.noise_multiplier",
            "test_an_adaptive_bounds_count_and_the_gradients_cost_together_what_one_release_does",
        ),
        (
            "rows that change each other's logits are not refused",
            "> scale:",
            "> 1e9 * scale:",
            "test_what_mixes_rows_and_keeps_nothing_is_refused",
        ),
    ),
    *within(
        CLIPPING,
        "tests/privacy/test_dpsgd.py",
        (
            "clipping is off",
            "return clip * (1 - 1e-5) / squared",
            "return torch.ones_like(squared) if True else clip / squared",
            "test_without_one_patient_it_moves_by_at_most_c_and_with_another_by_twice_that",
        ),
        (
            "each stay is clipped by itself",
            "units = _Units(patient)",
            "units = _Units(torch.arange(len(patient)))",
            "test_a_patient_with_fifty_stays_counts_for_one",
        ),
        (
            "a patient's stays are taken for patients",
            "and first.ndim == 2 and units.alone:",
            "and first.ndim == 2:",
            "test_without_one_patient_it_moves_by_at_most_c_and_with_another_by_twice_that",
        ),
        (
            "a bias is left out of the length",
            "(self._seen.square().sum(1) + float(self._layer.bias is not None))",
            "self._seen.square().sum(1)",
            "test_it_is_the_sum_of_each_patients_gradient_clipped",
        ),
        (
            "of a layer that is used twice one use counts",
            "and len(uses) == 1 and first.ndim == 2 and units.alone:",
            "and first.ndim == 2 and units.alone:",
            "test_it_is_the_sum_of_each_patients_gradient_clipped",
        ),
        (
            "each of many layers is clipped to C",
            "_factor(one, clip / len(parts) ** 0.5)",
            "_factor(one, clip)",
            "test_a_layer_by_itself_is_clipped_to_its_part_of_c",
        ),
        (
            "layers whose first axis is not the rows pass",
            "> 1e-3 * clip:",
            "> 1e9 * clip:",
            "test_a_network_whose_first_axis_is_not_the_rows_is_refused",
        ),
    ),
    *within(
        DPSGD,
        "tests/privacy/test_audit.py",
        (
            "all patients are drawn, a sample is accounted",
            "self.source.uniform(self.patients) < self.sampling_rate",
            "self.source.uniform(self.patients) < 1",
            "test_an_honest_mechanism_is_not_found_out",
        ),
        (
            "no noise",
            "(value + noise * self._normal(value)) / expected",
            "(value + 0.0 * noise * self._normal(value)) / expected",
            "test_an_honest_mechanism_is_not_found_out",
        ),
        (
            "twice as many steps are made as are accounted",
            "for _ in range(self.steps):",
            "for _ in range(2 * self.steps):",
            "test_as_many_steps_are_made_as_are_written_down",
        ),
    ),
    *within(
        TERMS,
        "tests/fedcore/test_protection.py",
        (
            "noise is seeded unless asked otherwise",
            'noise: Literal["cryptographic", "seeded"] = "cryptographic"',
            'noise: Literal["cryptographic", "seeded"] = "seeded"',
            "test_terms_out_of_bounds_are_refused_and_noise_is_cryptographic_by_default",
        ),
        (
            "an infinite epsilon passes for a budget",
            "epsilon: float = Field(gt=0, allow_inf_nan=False)",
            "epsilon: float = Field(gt=0)",
            "test_terms_out_of_bounds_are_refused_and_noise_is_cryptographic_by_default",
        ),
        (
            "terms may have keys that nobody reads",
            'extra="forbid"',
            'extra="ignore"',
            "test_terms_out_of_bounds_are_refused_and_noise_is_cryptographic_by_default",
        ),
    ),
    *within(
        PROTECTION,
        "tests/privacy/test_audit.py",
        (
            "one step a visit is written down",
            "visit = replace(planned[TRAINING], count=steps)",
            "visit = replace(planned[TRAINING], count=1)",
            "test_as_many_steps_are_made_as_are_written_down",
        ),
        (
            "training is not written down",
            'self.ledger.spend(f"{TRAINING}/{trial}/{number}/{stream}", TRAINING, visit, repeats=self._repeats)',
            "self.ledger.settle(planned.values())",
            "test_as_many_steps_are_made_as_are_written_down",
        ),
        (
            "a seed is used again in every round",
            "source=self._source(TRAINING, trial, number, stream),",
            "source=self._source(TRAINING, trial, stream),",
            "test_the_noise_of_two_visits_is_never_the_same",
        ),
        (
            "all sites draw the same noise",
            'stream(self._seed, "noise", self._site, *names)',
            'stream(self._seed, "noise", *names)',
            "test_the_noise_of_two_visits_is_never_the_same",
        ),
    ),
    *within(
        PROTECTION,
        "tests/fedcore/test_protection.py",
        (
            "noise is planned for one round",
            "_training_noise(budget.epsilon, self._training_delta, rate, steps * rounds, (statistics,))",
            "_training_noise(budget.epsilon, self._training_delta, rate, steps, (statistics,))",
            "test_what_is_planned_is_within_the_budget_and_uses_it",
        ),
        (
            "the statistics are left out of the plan",
            "_training_noise(budget.epsilon, self._training_delta, rate, steps * rounds, (statistics,))",
            "_training_noise(budget.epsilon, self._training_delta, rate, steps * rounds, ())",
            "test_what_is_planned_is_within_the_budget_and_uses_it",
        ),
        (
            "what the plan needs is not settled before it trains",
            "self.ledger.settle(planned.values())\n        steps =",
            "steps =",
            "test_what_was_not_settled_before_the_first_release_is_refused",
        ),
        (
            "statistics are not written down",
            "self.ledger.spend(STATISTICS, STATISTICS, planned[STATISTICS], repeats=self._repeats)",
            "pass",
            "test_statistics_are_written_down_before_their_noise_is_handed_out",
        ),
        (
            "delta is twice a tenth of a patient's share",
            "return float(0.1 * 0.5**doubled)",
            "return float(0.2 * 0.5**doubled)",
            "test_delta_is_a_tenth_of_a_patients_share_at_most",
        ),
        (
            "everybody may be drawn in every step",
            "check_bounds(setting)",
            "pass",
            "test_a_sampling_rate_that_is_no_sampling_is_refused",
        ),
        (
            "a round done again with new noise is free",
            'return self.terms.noise == "seeded"',
            "return True",
            "test_a_visit_made_again_is_paid_again_unless_its_noise_is_the_same",
        ),
        (
            "cryptographic noise is seeded",
            'if self.terms.noise == "seeded":',
            "if True:",
            "test_noise_comes_from_the_source_that_the_terms_say",
        ),
    ),
    *within(
        SKETCHES,
        "tests/privacy/test_sketches.py",
        (
            "histograms leave without noise",
            "counts + deviation * noise, np.full",
            "counts, np.full",
            "test_a_noisy_histogram_has_the_noise_it_says_on_every_cell",
        ),
        (
            "noise is for one column, and a patient is in many",
            "deviation = noise_multiplier * np.sqrt(len(names))",
            "deviation = noise_multiplier",
            "test_a_noisy_histogram_has_the_noise_it_says_on_every_cell",
        ),
        (
            "merged noise is understated",
            "self.variance + other.variance",
            "self.variance",
            "test_noise_adds_up_when_histograms_merge",
        ),
        (
            "cells that are all noise count",
            "told = sums[last] - sums[first] > max(4 * noise[first, last], 0)",
            "told = True",
            "test_of_columns_that_are_all_noise_no_quantile_is_told",
        ),
        (
            "a sketch may hold counts of few",
            "small = (cells != 0) & (cells < self.minimum)",
            "small = cells < 0",
            "test_what_does_not_fit_the_schema_is_refused",
        ),
    ),
    *within(
        MESSAGES,
        "tests/privacy/test_messages.py",
        (
            "counts of few are told",
            "return count if count >= minimum else 0",
            "return count",
            "test_counts_below_the_minimum_are_told_as_none",
        ),
        (
            "more may leave than the schema names",
            "if found != expected:",
            "if not found >= expected:",
            "test_numbers_are_the_named_ones_single_finite_and_of_ten_patients",
        ),
        (
            "counts of few may leave",
            "if name in schema.released_counts and released(number) != number:",
            "if False:",
            "test_numbers_are_the_named_ones_single_finite_and_of_ten_patients",
        ),
        (
            "arrays of any shape may leave as the model",
            "(array.shape != asked.shape and not grows)",
            "False",
            "test_nothing_but_the_model_that_was_sent_leaves_as_a_model",
        ),
        (
            "a model of NaN may leave",
            'if array.dtype.kind == "f" and not np.isfinite(array).all():',
            "if False:",
            "test_nothing_but_the_model_that_was_sent_leaves_as_a_model",
        ),
        (
            "sketches of few may leave",
            "if sketch.minimum < DEFAULT_MINIMUM:",
            "if sketch.minimum < 1:",
            "test_sketches_leave_only_as_sketches_of_enough_patients",
        ),
        (
            "texts of any length may leave",
            "or len(text) > longest or",
            "or",
            "test_texts_are_short_names",
        ),
    ),
    *within(
        DESK,
        "tests/fedcore/federation/test_privacy.py",
        (
            "the number of stays leaves under privacy",
            'numbers |= {"num-examples": weight, "loss-weight": 0, "loss-sum": 0.0}',
            'numbers |= {"loss-weight": 0, "loss-sum": 0.0}',
            "test_nothing_leaves_but_with_noise_and_the_number_of_patients",
        ),
        (
            "the training loss leaves under privacy",
            'numbers |= {"num-examples": weight, "loss-weight": 0, "loss-sum": 0.0}',
            'numbers |= {"num-examples": weight}',
            "test_nothing_leaves_but_with_noise_and_the_number_of_patients",
        ),
    ),
    *within(
        CLIENT,
        "tests/fedcore/federation/test_privacy.py",
        (
            "the tuning loss leaves under privacy",
            "if few or here.protection is not None:",
            "if few:",
            "test_nothing_leaves_but_with_noise_and_the_number_of_patients",
        ),
        (
            "tuning counts leave under privacy",
            "if here.protection is not None:  # how many patients a site has is public, and nothing else about them",
            "if False:",
            "test_nothing_leaves_but_with_noise_and_the_number_of_patients",
        ),
        (
            "statistics leave without noise under privacy",
            "if here.protection is None:\n            drawn",
            "if True:\n            drawn",
            "test_nothing_leaves_but_with_noise_and_the_number_of_patients",
        ),
    ),
    *within(
        CLIENT,
        "tests/fedcore/federation/test_wall.py",
        (
            "the wall looks at nothing",
            "messages.check(action, parcel(reply.content), sent)",
            "pass",
            "test_what_the_wall_stops_has_not_left_the_site",
        ),
        (
            "what a site's code raises is told outside",
            "reason = f\"{type(error).__name__} in '{action}'; the site's log has the details at level DEBUG\"",
            "reason = str(error)",
            "test_a_crash_tells_its_kind_and_keeps_its_text_at_the_site",
        ),
    ),
    *within(
        "benchmarks/bench/training.py",
        "tests/bench/test_privacy.py",
        (
            "noise on real patients is seeded",
            'noise = "cryptographic" if real else "seeded"',
            'noise = "seeded"',
            "test_noise_on_real_patients_is_always_cryptographic",
        ),
    ),
    *within(
        DESK,
        "tests/fedcore/test_protection.py",
        (
            "a resumed site does not miss its ledger",
            "expected = bool(self.memory.agreed) or (",
            "expected = (",
            "test_a_site_that_goes_on_without_its_ledger_releases_nothing",
        ),
    ),
    *within(
        "privacy/distributed.py",
        "tests/privacy/test_distributed.py",
        (
            "an insider's share counts as noise",
            "return self.threshold - 1",
            "return self.threshold",
            "test_whoever_subtracts_a_share_faces_the_noise_that_is_accounted",
        ),
        (
            "rounding to whole numbers is left out of what a patient moves",
            " + math.sqrt(self.coordinates)",
            " + 0 * math.sqrt(self.coordinates)",
            "test_rounding_counts_in_every_coordinate_and_round",
        ),
        (
            "rounding counts once",
            "return rounds * self.coordinates",
            "return 1",
            "test_rounding_counts_in_every_coordinate_and_round",
        ),
    ),
    *within(
        "fedcore/distributed.py",
        "tests/fedcore/federation/test_distributed.py",
        (
            "a step is rounded to float32",
            "wide = wide - step_size * slope",
            "wide = (wide - step_size * slope).astype(np.float32).astype(np.float64)",
            "test_one_patient_moves_a_sites_integers_by_no_more_than_is_noised",
        ),
        (
            "the share of the noise is left out",
            "words[: noise.coordinates] += noise.draw(how.source).view(words.dtype)",
            "pass",
            "test_every_share_is_what_an_insider_leaves_over",
        ),
    ),
    *within(
        DESK,
        "tests/fedcore/federation/test_distributed.py",
        (
            "a site that shares noise sends a model of its own",
            "if here.shares_noise:",
            "if False:",
            "test_a_model_leaves_only_masked_and_noised",
        ),
    ),
    *GUARDING,
)
