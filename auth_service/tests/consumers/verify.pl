#!/usr/bin/perl
# usage: perl verify.pl <key set address> <issuer> <token>; prints the claims, or dies with the reason.
use strict;
use warnings;
use Crypt::JWT qw(decode_jwt);
use HTTP::Tiny;
use JSON::PP;

my ($key_set, $issuer, $token) = @ARGV;
my $answer = HTTP::Tiny->new(timeout => 10)->get($key_set);
die "no key set: $answer->{status}\n" unless $answer->{success};
my ($header, $payload) = decode_jwt(
    token         => $token,
    kid_keys      => $answer->{content},
    decode_header => 1,
    accepted_alg  => ["RS256", "EdDSA"],
    verify_iss    => sub { $_[0] eq $issuer },
    verify_aud    => sub { $_[0] eq "herald" },
    verify_exp    => 1,
    verify_nbf    => 1,
);
die "wrong typ\n" unless $header->{typ} eq "at+jwt";
print encode_json($payload), "\n";
