package box

import (
	"net/http"

	"allotment/portal/web"
)

func (p *Pages) power(r *web.Request) error { return r.Render("power", nil) }

func (p *Pages) setPower(r *web.Request) error {
	what := r.Form.Choice("what", "restart", "off")
	if what == "off" && !r.Form.Checked("sure") {
		r.Form.Fail("sure", "box.power.sure")
	}
	if !r.Form.OK() {
		return r.Render("power", nil)
	}
	v := waitView{Title: r.T("box.power.going." + what), Text: r.T("box.power.then." + what)}
	kind, f := "box.restart", r.Box.RestartBox
	if what == "off" {
		kind, f = "box.power-off", r.Box.PowerOff
	}
	r.Record(kind, "", nil)
	if err := f(ctx(r)); err != nil {
		return problem(err)
	}
	r.Status = http.StatusAccepted
	return r.Render("wait", v)
}
