//go:build !race

package simulation

// short is how many seeds the short form has.
const short = 40
