//go:build race

package simulation

// short is how many seeds the short form has: with the race detector one takes
// ten times as long.
const short = 40
