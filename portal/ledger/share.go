package ledger

import (
	"cmp"
	"math/big"
	"slices"
)

// Use is what a module takes of the machine, in bytes.
type Use struct {
	Module string
	Memory int64
	Disk   int64
}

// Share is a module's part of the costs.
type Share struct {
	Module string // empty: what no module can be charged with, since none uses anything
	Own    int64  // cents of entries for it alone
	Common int64  // cents of what is for all
}

// Total is all that the module costs, in cents.
func (s Share) Total() int64 { return s.Own + s.Common }

// Summary is what happened in a span of time, in one currency. Amounts are cents.
type Summary struct {
	Currency string
	Costs    int64
	Income   int64
	Shares   []Share // the dearest first; they add up to Costs
}

// Balance is what is left, in cents.
func (s *Summary) Balance() int64 { return s.Income - s.Costs }

// PerMember is what each of so many members costs, in cents, rounded up to a whole one; 0 without members.
func (s *Summary) PerMember(members int) int64 {
	if members <= 0 {
		return 0
	}
	n := int64(members)
	return (s.Costs + n - 1) / n
}

// Summarize adds up entries, for each currency by itself in the order of their codes. Costs for all are divided: one
// half as the modules use memory, the other as they use disk.
func Summarize(list []Entry, uses []Use) []Summary {
	byCurrency := map[string][]Entry{}
	for _, e := range list {
		byCurrency[e.Currency] = append(byCurrency[e.Currency], e)
	}
	var found []Summary
	for currency, list := range byCurrency {
		s := Summary{Currency: currency}
		own := map[string]int64{}
		var common int64
		for _, e := range list {
			switch {
			case e.Kind == Income:
				s.Income += e.Cents
			case e.Module == "":
				s.Costs += e.Cents
				common += e.Cents
			default:
				s.Costs += e.Cents
				own[e.Module] += e.Cents
			}
		}
		s.Shares = shares(common, own, uses)
		found = append(found, s)
	}
	slices.SortFunc(found, func(a, b Summary) int { return cmp.Compare(a.Currency, b.Currency) })
	return found
}

func shares(common int64, own map[string]int64, uses []Use) []Share {
	memory, disk := make([]int64, len(uses)), make([]int64, len(uses))
	for i, u := range uses {
		memory[i], disk[i] = u.Memory, u.Disk
	}
	forMemory, leftOfMemory := divide(common/2, memory)
	forDisk, leftOfDisk := divide(common-common/2+leftOfMemory, disk)
	if leftOfDisk > 0 { // no module has anything on disk
		forDisk, leftOfDisk = divide(leftOfDisk, memory)
	}
	var all []Share
	for i, u := range uses {
		all = append(all, Share{Module: u.Module, Own: own[u.Module], Common: forMemory[i] + forDisk[i]})
		delete(own, u.Module)
	}
	for module, cents := range own { // that is off now
		all = append(all, Share{Module: module, Own: cents})
	}
	if leftOfDisk > 0 {
		all = append(all, Share{Common: leftOfDisk})
	}
	slices.SortFunc(all, func(a, b Share) int {
		return cmp.Or(cmp.Compare(b.Total(), a.Total()), cmp.Compare(a.Module, b.Module))
	})
	return all
}

// divide divides cents by weights, so that the parts add up: the cents that are left by rounding down go to those who
// lost most by it. What cannot be divided, since no weight is above zero, comes back.
func divide(cents int64, weights []int64) (parts []int64, left int64) {
	parts = make([]int64, len(weights))
	total := new(big.Int)
	for _, w := range weights {
		total.Add(total, big.NewInt(max(w, 0)))
	}
	if total.Sign() == 0 {
		return parts, cents
	}
	lost := make([]*big.Int, len(weights))
	order := make([]int, len(weights))
	left = cents
	for i, w := range weights {
		part := new(big.Int).Mul(big.NewInt(cents), big.NewInt(max(w, 0)))
		lost[i] = new(big.Int)
		part.DivMod(part, total, lost[i])
		parts[i], order[i] = part.Int64(), i
		left -= parts[i]
	}
	slices.SortStableFunc(order, func(a, b int) int { return lost[b].Cmp(lost[a]) })
	for _, i := range order[:left] {
		parts[i]++
	}
	return parts, 0
}
