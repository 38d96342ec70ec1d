// Package lua is the shelf: every change of stock is one of the scripts beside this file, each
// with a Go binding of the same name and a header that says what it takes and answers. What
// several scripts share is in shared/ and joined in front of them at load.
//
// connect.go opens Redis; script.go joins and runs scripts; store.go finds a shard, follows its
// epoch and watches that it never steps back; keys.go names its keys. Then the verbs: reserve,
// confirm, release, extend, cancel, find, availability for the door, with limit for attempts that
// reserve does not count and once for what may be used a single time; adjust and apply for those who
// run the sale; expire, look, cut, trim, close, build, flip for the books.
package lua
