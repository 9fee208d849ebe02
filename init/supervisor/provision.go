package supervisor

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"net"
	"strconv"

	"allotment/api"
	"allotment/init/plan"
	"allotment/portal/directory"
)

// portalSecret is the directory's secret by which the portal, its only writer, logs in.
const portalSecret = "portal"

// Provision implements apiserver.Box.
func (b *Box) Provision(ctx context.Context, p api.Provision) iter.Seq2[api.Account, error] {
	return func(yield func(api.Account, error) bool) {
		c, address, err := b.supervisor.connectDirectory(ctx)
		if err != nil {
			yield(api.Account{}, err)
			return
		}
		defer c.Close()
		group := cmp.Or(p.Group, "members")
		if err := c.AddGroup(directory.Group{Name: group}); err != nil && !errors.Is(err, directory.ErrExists) {
			yield(api.Account{}, err)
			return
		}
		for i := range p.Users {
			if ctx.Err() != nil {
				return
			}
			a := api.Account{Name: fmt.Sprintf("user%02d", i+1), Password: rand.Text()}
			err := account(ctx, c, address, group, a)
			if !yield(a, err) || err != nil {
				return
			}
		}
	}
}

// account makes one account, or gives it a new password, and tries it.
func account(ctx context.Context, c *directory.Client, address, group string, a api.Account) error {
	err := c.AddPerson(directory.Person{Name: a.Name, FullName: a.Name}, a.Password)
	if errors.Is(err, directory.ErrExists) {
		err = c.SetPassword(a.Name, a.Password)
	}
	if err != nil {
		return err
	}
	if err := c.AddMember(group, a.Name); err != nil && !errors.Is(err, directory.ErrExists) {
		return err
	}
	return directory.Authenticate(ctx, address, a.Name, a.Password)
}

// connectDirectory connects to the directory with the portal's rights.
func (s *Supervisor) connectDirectory(ctx context.Context) (*directory.Client, string, error) {
	f, p, err := s.filesAndPlan()
	if err != nil {
		return nil, "", err
	}
	m := p.Module(plan.Directory)
	if m == nil {
		return nil, "", api.Errorf(api.Conflict, "this box has no directory")
	}
	password, err := f.secret(m, portalSecret, s.wallClock())
	if err != nil {
		return nil, "", err
	}
	address := net.JoinHostPort(m.IPv4.Addr().String(), strconv.Itoa(plan.LDAPPort))
	c, err := directory.Connect(ctx, address, password)
	if err != nil {
		return nil, "", api.Errorf(api.Conflict, "the directory does not let the portal in: %v", err)
	}
	return c, address, nil
}
