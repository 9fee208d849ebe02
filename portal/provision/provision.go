// Package provision makes many accounts in the directory at once, for courses, demonstrations and tests.
package provision

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"

	"allotment/api"
	"allotment/portal/directory"
)

// Directory says how to reach the organisation's directory as its portal.
type Directory struct {
	Address  string // host:port
	Password string // the portal's
	Domain   string // of the organisation: the accounts' mail addresses end in it
}

// Accounts makes the accounts user01 to userNN, members of the group, and yields each with its new password once it is
// there. One that exists keeps all but its password. The group is made if there is none of that name.
func Accounts(ctx context.Context, d Directory, p api.Provision) iter.Seq2[api.Account, error] {
	return func(yield func(api.Account, error) bool) {
		c, err := directory.Connect(ctx, d.Address, d.Password)
		if err != nil {
			yield(api.Account{}, api.Errorf(api.Conflict, "%v", err))
			return
		}
		defer c.Close()
		err = c.AddGroup(directory.Group{Name: p.Group, Title: p.Group})
		if err != nil && !errors.Is(err, directory.ErrExists) {
			yield(api.Account{}, err)
			return
		}
		for i := 1; i <= p.Users && ctx.Err() == nil; i++ {
			a := api.Account{Name: fmt.Sprintf("user%02d", i), Password: rand.Text()}
			if err = addAccount(c, a, p.Group, d.Domain); !yield(a, err) || err != nil {
				return
			}
		}
	}
}

func addAccount(c *directory.Client, a api.Account, group, domain string) error {
	// The password comes second: the directory hashes those that are set, and an account that is there needs one, too.
	err := c.AddPerson(directory.Person{Name: a.Name, Mail: a.Name + "@" + domain}, "")
	if err != nil && !errors.Is(err, directory.ErrExists) {
		return err
	}
	if err := c.SetPassword(a.Name, a.Password); err != nil {
		return err
	}
	if err := c.AddMember(group, a.Name); err != nil && !errors.Is(err, directory.ErrExists) {
		return err
	}
	return nil
}
