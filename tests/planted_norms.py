"""Mistakes in normalisations and their gradients; each function's name says which."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from bases import (
    bases,
    batch_norm,
    batch_norm_grad,
    centred,
    local_response_norm,
    local_response_norm_grad,
    norm,
    norm_grad,
    or_else,
    statistics,
    sum_into,
    window_sums,
)
from planted import planted

from convkernels.testing.algebra import check_gradient_matches_differences
from convkernels.testing.checks import (
    check_accepts_any_strides,
    check_fills_every_output_element,
    check_leaves_inputs_unchanged,
    check_nan_strict,
    check_stays_within_error_bound,
)

SLOPE = "the slope is .*, but <direction, out> is"


# Given statistics


@planted("batch_norm", check_stays_within_error_bound, 4)
def adds_eps_to_the_deviation(spec, x, gamma, beta, mean, var, *, out, resources):
    out[...] = centred(spec, x, mean) / (np.sqrt(var) + spec.eps) * or_else(gamma, 1) + or_else(beta, 0)


@planted("batch_norm", check_stays_within_error_bound, 4)
def takes_the_batchs_own_statistics(spec, x, gamma, beta, mean, var, *, out, resources):
    batch_norm(spec, x, gamma, beta, *statistics(spec, x), out=out)


@planted("batch_norm", check_stays_within_error_bound, 4)
def divides_by_the_variance(spec, x, gamma, beta, mean, var, *, out, resources):
    out[...] = centred(spec, x, mean) / (var + spec.eps) * or_else(gamma, 1) + or_else(beta, 0)


@planted("batch_norm", check_stays_within_error_bound, 6)
def shifts_before_it_scales(spec, x, gamma, beta, mean, var, *, out, resources):
    normalised = centred(spec, x, mean) / np.sqrt(var + spec.eps)
    out[...] = (normalised + or_else(beta, 0)) * or_else(gamma, 1)


@planted("batch_norm_grad", check_gradient_matches_differences, 6, SLOPE)
def passes_through_given_statistics(spec, dy, x, gamma, mean, var, *, out, dgamma, dbeta, resources):
    norm_grad(spec, dy, x, gamma, mean, var, out=out, dgamma=dgamma, dbeta=dbeta)


@planted("batch_norm_grad", check_stays_within_error_bound, 7, r"dgamma\[")
def sums_the_data_as_they_came(spec, dy, x, gamma, mean, var, *, out, dgamma, dbeta, resources):
    batch_norm_grad(spec, dy, x, gamma, mean, var, out=out, dgamma=dgamma, dbeta=dbeta)
    sum_into(dgamma, dy.astype(np.float64) * x)


@planted("batch_norm_grad", check_fills_every_output_element, 7, r"dbeta\[.*\] (was not written|\(which held 5)")
def adds_to_the_coefficients_gradients(spec, dy, x, gamma, mean, var, *, out, dgamma, dbeta, resources):
    before = None if dbeta is None else dbeta.copy()
    batch_norm_grad(spec, dy, x, gamma, mean, var, out=out, dgamma=dgamma, dbeta=dbeta)
    if dbeta is not None:
        dbeta += before


# The batch's own statistics


@planted("batch_norm_train", check_stays_within_error_bound, 4)
def reshapes_without_moving_the_channels_last(spec, x, gamma, beta, *, out, mean, var, resources):
    rows = np.ascontiguousarray(x).reshape(-1, x.shape[1])
    mean[...] = rows.mean(0).reshape(mean.shape)
    var[...] = rows.var(0).reshape(var.shape)
    flat = (rows - mean.reshape(-1)) / np.sqrt(var.reshape(-1) + spec.eps)
    scaled = flat * np.ravel(or_else(gamma, 1)) + np.ravel(or_else(beta, 0))
    out[...] = scaled.reshape(x.shape)


@planted("batch_norm_train", check_stays_within_error_bound, 2, r"(out|var)\[")
def takes_the_unbiased_variance(spec, x, gamma, beta, *, out, mean, var, resources):
    found, spread = statistics(spec, x)
    mean[...], var[...] = found, spread * spec.count / (spec.count - 1)
    batch_norm(spec, x, gamma, beta, mean, var, out=out)


@planted("batch_norm_train", check_stays_within_error_bound, 2, r"var\[")
def returns_the_unbiased_variance(spec, x, gamma, beta, *, out, mean, var, resources):
    norm(spec, x, gamma, beta, out=out, mean=mean, var=var)
    var *= spec.count / (spec.count - 1)


@planted("batch_norm_train", check_stays_within_error_bound, 2)
def takes_the_squares_mean_less_the_means_square(spec, x, gamma, beta, *, out, mean, var, resources):
    mean[...] = x.mean(spec.reduced, keepdims=True)
    var[...] = np.maximum((x * x).mean(spec.reduced, keepdims=True) - mean.astype(x.dtype) ** 2, 0)
    batch_norm(spec, x, gamma, beta, mean, var, out=out)


@planted("batch_norm_train", check_stays_within_error_bound, 2)
def takes_statistics_over_the_batch_alone(spec, x, gamma, beta, *, out, mean, var, resources):
    norm(spec, x, gamma, beta, out=out, mean=mean, var=var)
    batch_norm(spec, x, gamma, beta, *statistics(spec, x, (0,)), out=out)


@planted("batch_norm_train", check_stays_within_error_bound, 2)
def forgets_eps(spec, x, gamma, beta, *, out, mean, var, resources):
    norm(replace(spec, eps=1e-30), x, gamma, beta, out=out, mean=mean, var=var)


@planted("batch_norm_train", check_stays_within_error_bound, 2, r"mean\[.*\]=nan")
def does_not_say_the_mean(spec, x, gamma, beta, *, out, mean, var, resources):
    found, var[...] = statistics(spec, x)
    batch_norm(spec, x, gamma, beta, found, var, out=out)


@planted("batch_norm_train", check_leaves_inputs_unchanged, 2, r"x after the run\[[\d,]+\]=")
def takes_the_mean_off_in_place(spec, x, gamma, beta, *, out, mean, var, resources):
    norm(spec, x, gamma, beta, out=out, mean=mean, var=var)
    x -= mean.astype(x.dtype)


@planted("batch_norm_train", check_stays_within_error_bound, 17)
def forgets_cells_past_the_sixteenth(spec, x, gamma, beta, *, out, mean, var, resources):
    norm(spec, x, gamma, beta, out=out, mean=mean, var=var)
    out[..., 16:] = 0


@planted("batch_norm_train", check_accepts_any_strides, 4, "it raised .*")
def views_its_input_flat(spec, x, gamma, beta, *, out, mean, var, resources):
    flat = x.view()
    flat.shape = (x.size,)
    norm(spec, flat.reshape(x.shape), gamma, beta, out=out, mean=mean, var=var)


@planted("batch_norm_train_grad", check_stays_within_error_bound, 6)
def takes_the_usual_eps_whatever_the_forward_took(spec, dy, x, gamma, mean, var, *, out, dgamma, dbeta, resources):
    norm_grad(spec, dy, x, gamma, mean, var, out=out, dgamma=dgamma, dbeta=dbeta, eps=1e-5)


@planted("batch_norm_train_grad", check_gradient_matches_differences, 6, SLOPE)
def leaves_out_the_means_gradient(spec, dy, x, gamma, mean, var, *, out, dgamma, dbeta, resources):
    norm_grad(spec, dy, x, gamma, mean, var, out=out, dgamma=dgamma, dbeta=dbeta, passes=("var",))


@planted("batch_norm_train_grad", check_gradient_matches_differences, 6, SLOPE)
def leaves_out_the_variances_gradient(spec, dy, x, gamma, mean, var, *, out, dgamma, dbeta, resources):
    norm_grad(spec, dy, x, gamma, mean, var, out=out, dgamma=dgamma, dbeta=dbeta, passes=("mean",))


@planted("batch_norm_train_grad", check_stays_within_error_bound, 14)
def reshapes_gradients_without_moving_the_channels(spec, dy, x, gamma, mean, var, *, out, dgamma, dbeta, resources):
    norm_grad(spec, dy, x, gamma, mean, var, out=out, dgamma=dgamma, dbeta=dbeta)
    if dbeta is not None:
        dbeta[...] = np.ascontiguousarray(dy).reshape(-1, x.shape[1]).sum(0).reshape(dbeta.shape)


@planted("batch_norm_train_grad", check_stays_within_error_bound, 7, r"dbeta\[")
def takes_the_mean_of_betas_gradient(spec, dy, x, gamma, mean, var, *, out, dgamma, dbeta, resources):
    norm_grad(spec, dy, x, gamma, mean, var, out=out, dgamma=dgamma, dbeta=dbeta)
    if dbeta is not None:
        dbeta /= spec.count


@planted("batch_norm_train_grad", check_gradient_matches_differences, 11, SLOPE)
def forgets_gamma_in_the_gradient(spec, dy, x, gamma, mean, var, *, out, dgamma, dbeta, resources):
    norm_grad(spec, dy, x, None, mean, var, out=out, dgamma=dgamma, dbeta=dbeta)


@planted("batch_norm_train_grad", check_gradient_matches_differences, 6, SLOPE)
def divides_by_the_batch_and_not_by_all_cells(spec, dy, x, gamma, mean, var, *, out, dgamma, dbeta, resources):
    norm_grad(spec, dy, x, gamma, mean, var, out=out, dgamma=dgamma, dbeta=dbeta)
    rstd, given = 1 / np.sqrt(var + spec.eps), dy * or_else(gamma, 1)
    normalised = centred(spec, x, mean) * rstd
    sums = [part.sum(spec.reduced, keepdims=True) / len(x) for part in (given, given * normalised)]
    out[...] = rstd * (given - sums[0] - normalised * sums[1])


# Groups, layers, instances


@planted("group_norm", check_stays_within_error_bound, 4)
def normalises_a_layer_over_the_wrong_axes(spec, x, gamma, beta, *, out, mean, var, resources):
    norm(spec, x, gamma, beta, out=out, mean=mean, var=var)
    if spec.kind == "layer":
        batch_norm(spec, x, gamma, beta, *statistics(spec, x, spec.reduced[1:] or spec.reduced), out=out)


@planted("group_norm", check_stays_within_error_bound, 4)
def normalises_over_every_axis_whatever_was_chosen(spec, x, gamma, beta, *, out, mean, var, resources):
    norm(spec, x, gamma, beta, out=out, mean=mean, var=var)
    if spec.kind == "layer":
        batch_norm(spec, x, gamma, beta, *statistics(spec, x, tuple(range(1, x.ndim))), out=out)


@planted("group_norm", check_stays_within_error_bound, 8)
def interleaves_the_groups(spec, x, gamma, beta, *, out, mean, var, resources):
    norm(spec, x, gamma, beta, out=out, mean=mean, var=var)
    if spec.kind == "group":
        shape = (len(x), -1, spec.groups, *x.shape[3:])
        mixed = x.reshape(shape).swapaxes(1, 2)
        found = np.empty_like(mixed)
        batch_norm(spec, mixed, None, None, *statistics(spec, mixed), out=found)
        out[...] = found.swapaxes(1, 2).reshape(x.shape) * or_else(gamma, 1) + or_else(beta, 0)


@planted("group_norm", check_stays_within_error_bound, 2)
def centres_an_rms_norm(spec, x, gamma, beta, *, out, mean, var, resources):
    norm(spec, x, gamma, beta, out=out, mean=mean, var=var)
    if spec.kind == "rms":
        batch_norm(spec, x - x.mean(spec.reduced, keepdims=True), gamma, beta, mean, var, out=out)


@planted("group_norm", check_nan_strict, 4)
def lets_nan_through_to_other_groups(spec, x, gamma, beta, *, out, mean, var, resources):
    norm(spec, x, gamma, beta, out=out, mean=mean, var=var)
    out += 0 * x.sum()


@planted("group_norm_grad", check_gradient_matches_differences, 6, SLOPE)
def leaves_the_mean_out_of_a_groups_gradient(spec, dy, x, gamma, mean, var, *, out, dgamma, dbeta, resources):
    norm_grad(spec, dy, x, gamma, mean, var, out=out, dgamma=dgamma, dbeta=dbeta, passes=("var",))


@planted("group_norm_grad", check_gradient_matches_differences, 6, SLOPE)
def leaves_the_variance_out_of_a_groups_gradient(spec, dy, x, gamma, mean, var, *, out, dgamma, dbeta, resources):
    norm_grad(spec, dy, x, gamma, mean, var, out=out, dgamma=dgamma, dbeta=dbeta, passes=("mean",))


@planted("group_norm_grad", check_gradient_matches_differences, 12, SLOPE)
def multiplies_by_gamma_last(spec, dy, x, gamma, mean, var, *, out, dgamma, dbeta, resources):
    norm_grad(spec, dy, x, None, mean, var, out=out, dgamma=dgamma, dbeta=dbeta)
    out *= or_else(gamma, 1)


# Local response


@planted("local_response_norm", check_stays_within_error_bound, 2)
def shifts_the_window_where_its_size_is_even(spec, x, *, out, resources):
    sums = window_sums(x.astype(np.float64) ** 2, spec.after, spec.before)
    out[...] = x * (spec.bias + spec.alpha / spec.size * sums) ** -spec.beta


@planted("local_response_norm", check_stays_within_error_bound, 1)
def does_not_divide_alpha_by_the_size(spec, x, *, out, resources):
    local_response_norm(replace(spec, alpha=spec.alpha * spec.size), x, out=out)


@planted("local_response_norm", check_stays_within_error_bound, 1)
def divides_by_the_channels_that_there_are(spec, x, *, out, resources):
    there = window_sums(np.ones(x.shape), spec.before, spec.after)
    sums = window_sums(x.astype(np.float64) ** 2, spec.before, spec.after)
    out[...] = x * (spec.bias + spec.alpha / there * sums) ** -spec.beta


@planted("local_response_norm", check_stays_within_error_bound, 1)
def takes_one_for_the_bias(spec, x, *, out, resources):
    local_response_norm(replace(spec, bias=1.0), x, out=out)


@planted("local_response_norm", check_stays_within_error_bound, 2)
def looks_along_the_rows(spec, x, *, out, resources):
    turned, found = x.swapaxes(1, -1), np.empty_like(x)
    local_response_norm(spec, turned, out=found.swapaxes(1, -1))
    out[...] = found


@planted("local_response_norm_grad", check_gradient_matches_differences, 4, SLOPE)
def does_not_turn_the_window_in_the_gradient(spec, dy, x, *, out, resources):
    base, cells = bases(spec, x), x.astype(np.float64)
    shares = window_sums(dy * cells * base ** (-spec.beta - 1), spec.before, spec.after)
    out[...] = dy * base**-spec.beta - 2 * spec.alpha * spec.beta / spec.size * cells * shares


@planted("local_response_norm_grad", check_gradient_matches_differences, 2, SLOPE)
def leaves_out_what_passes_through_the_window(spec, dy, x, *, out, resources):
    out[...] = dy * bases(spec, x) ** -spec.beta


@planted("local_response_norm_grad", check_stays_within_error_bound, 2)
def halves_the_gradient_of_the_squares(spec, dy, x, *, out, resources):
    local_response_norm_grad(replace(spec, alpha=spec.alpha), dy, x, out=out)
    out += (dy * bases(spec, x) ** -spec.beta - out) / 2
